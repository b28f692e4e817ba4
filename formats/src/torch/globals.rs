//! The names that a pickle may ask for. Nothing is looked up: each stands for a thing that is done here.

use crate::ReadError;
use crate::element::Element;
use crate::error::shown;

/// What a `module.name` of a pickle stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    /// `collections.OrderedDict`: a dict.
    OrderedDict,
    /// `torch.Size`: the tuple that it is given.
    Size,
    /// `torch._utils._rebuild_tensor` (before 0.4) and `_rebuild_tensor_v2`: a tensor from storage, offset, sizes, strides.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`: the tensor that it is given.
    RebuildParameter,
    /// `torch.FloatStorage` and its like: a type, named beside a storage.
    Storage(Element),
    /// What people keep beside their weights (arguments, a best error as a NumPy number): read over.
    Inert,
}

/// The meaning of a name.
///
/// # Errors
/// When no state dict needs it.
pub(super) fn global(module: &[u8], name: &[u8]) -> Result<Global, ReadError> {
    Ok(match (module, name) {
        (b"collections", b"OrderedDict") => Global::OrderedDict,
        (b"torch", b"Size") => Global::Size,
        (b"torch._utils", b"_rebuild_tensor" | b"_rebuild_tensor_v2") => Global::RebuildTensor,
        (b"torch._utils", b"_rebuild_parameter") => Global::RebuildParameter,
        (b"torch" | b"torch.cuda" | b"torch.storage", name) if name.ends_with(b"Storage") => {
            Global::Storage(storage(name)?)
        }
        _ if is_inert(module, name) => Global::Inert,
        _ => return Err(ReadError::Unsafe { callable: format!("{}.{}", shown(module), shown(name)) }),
    })
}

fn is_inert(module: &[u8], name: &[u8]) -> bool {
    match module {
        b"argparse" => name == b"Namespace",
        b"collections" => matches!(name, b"defaultdict" | b"Counter"),
        b"__builtin__" | b"builtins" => {
            matches!(
                name,
                b"set"
                    | b"frozenset"
                    | b"list"
                    | b"dict"
                    | b"tuple"
                    | b"int"
                    | b"float"
                    | b"complex"
                    | b"bytearray"
            )
        }
        b"numpy" => matches!(name, b"dtype" | b"ndarray"),
        b"numpy.core.multiarray" | b"numpy._core.multiarray" => matches!(name, b"scalar" | b"_reconstruct"),
        b"_codecs" => name == b"encode",
        b"torch" => matches!(name, b"device" | b"float32" | b"float64" | b"float16" | b"int64" | b"strided"),
        _ => false,
    }
}

fn storage(name: &[u8]) -> Result<Element, ReadError> {
    Ok(match name {
        b"DoubleStorage" => Element::F64,
        b"FloatStorage" => Element::F32,
        b"HalfStorage" => Element::F16,
        b"BFloat16Storage" => Element::Bf16,
        b"LongStorage" => Element::I64,
        b"IntStorage" => Element::I32,
        b"ShortStorage" => Element::I16,
        b"CharStorage" => Element::I8,
        b"ByteStorage" => Element::U8,
        b"BoolStorage" => Element::Bool,
        other => {
            let name = shown(other);
            return Err(ReadError::unsupported(format!(
                "it holds a torch.{name}, whose elements are not read here; save the model in float32"
            )));
        }
    })
}
