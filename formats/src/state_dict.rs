//! A state dict as plain arrays.

use std::collections::BTreeMap;

/// The type of an array's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
    /// Signed whole numbers of 64 bits.
    I64,
    /// Bytes.
    U8,
}

impl Dtype {
    /// Bytes that one element takes.
    pub fn bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F64 | Dtype::I64 => 8,
            Dtype::U8 => 1,
        }
    }

    /// Its name on screen: PyTorch's.
    pub fn as_str(self) -> &'static str {
        match self {
            Dtype::F32 => "float32",
            Dtype::F64 => "float64",
            Dtype::I64 => "int64",
            Dtype::U8 => "uint8",
        }
    }

    /// Whether the elements are real numbers.
    pub fn is_real(self) -> bool {
        matches!(self, Dtype::F32 | Dtype::F64)
    }
}

/// An array in row-major order. Its bytes are as many as shape and type say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Array {
    /// An array of little-endian elements.
    ///
    /// # Errors
    /// When there are more or fewer bytes than shape and type say.
    pub fn new(dtype: Dtype, shape: Vec<usize>, bytes: Vec<u8>) -> Result<Array, String> {
        let expected = shape.iter().try_fold(dtype.bytes(), |product, &n| product.checked_mul(n));
        if expected != Some(bytes.len()) {
            let found = bytes.len();
            return Err(format!(
                "shape {shape:?} of {dtype:?} does not make the {found} bytes that there are"
            ));
        }
        Ok(Array { dtype, shape, bytes })
    }

    /// An array of single precision numbers.
    ///
    /// # Errors
    /// When there are more or fewer elements than the shape says.
    pub fn from_f32(shape: Vec<usize>, values: &[f32]) -> Result<Array, String> {
        Array::new(Dtype::F32, shape, values.iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    /// An array of double precision numbers.
    ///
    /// # Errors
    /// When there are more or fewer elements than the shape says.
    pub fn from_f64(shape: Vec<usize>, values: &[f64]) -> Result<Array, String> {
        Array::new(Dtype::F64, shape, values.iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    /// An array of whole numbers.
    ///
    /// # Errors
    /// When there are more or fewer elements than the shape says.
    pub fn from_i64(shape: Vec<usize>, values: &[i64]) -> Result<Array, String> {
        Array::new(Dtype::I64, shape, values.iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    /// The type of its elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Its sizes, slowest first; none of a single number.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its elements, little-endian, in row-major order.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many elements it has.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.dtype.bytes()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Its elements in double precision; whole numbers beyond 2⁵³ are rounded.
    pub fn to_f64(&self) -> Vec<f64> {
        match self.dtype {
            Dtype::F32 => self.elements(|bytes| f64::from(f32::from_le_bytes(bytes))),
            Dtype::F64 => self.elements(f64::from_le_bytes),
            Dtype::I64 => self.elements(|bytes| i64::from_le_bytes(bytes) as f64),
            Dtype::U8 => self.elements(|[byte]| f64::from(byte)),
        }
    }

    /// Its elements, if they are whole numbers.
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        match self.dtype {
            Dtype::I64 => Some(self.elements(i64::from_le_bytes)),
            Dtype::U8 => Some(self.elements(|[byte]| i64::from(byte))),
            Dtype::F32 | Dtype::F64 => None,
        }
    }

    fn elements<const N: usize, T>(&self, decode: impl Fn([u8; N]) -> T) -> Vec<T> {
        self.bytes.as_chunks().0.iter().map(|&bytes| decode(bytes)).collect()
    }
}

/// Named arrays, and what else a file of them tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StateDict {
    /// The arrays by name, e.g. `features.init_conv.weight`.
    pub tensors: BTreeMap<String, Array>,
    /// The JSON of the spec they belong to, where the file carries one; ours do.
    pub spec_json: Option<String>,
}
