//! From layers to ONNX operators.

use cnx_proto::architecture::{Layer, Op};

use super::schema::attribute_proto::AttributeType;
use super::schema::tensor_proto::DataType;
use super::schema::tensor_shape_proto::{Dimension, dimension};
use super::schema::{
    AttributeProto, GraphProto, NodeProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
    type_proto,
};
use crate::{Array, Dtype, StateDict};

/// The names that people feed and fetch.
const INPUT: &str = "images";
const OUTPUT: &str = "logits";

/// Every batch norm's.
const EPSILON: f32 = 1e-5;

/// A graph while it is built.
pub(super) struct Graph<'a> {
    state: &'a StateDict,
    graph: GraphProto,
    /// The value that each layer so far gives, and its channels and size.
    values: Vec<(String, u64, u64)>,
}

impl<'a> Graph<'a> {
    /// An empty one, whose weights are those of a state dict.
    pub fn new(state: &'a StateDict) -> Graph<'a> {
        Graph { state, graph: GraphProto::default(), values: Vec::new() }
    }

    /// Adds the next layer.
    pub fn add(&mut self, layer: &Layer) -> Result<(), String> {
        let name = layer.name.as_str();
        let inputs: Vec<String> = layer.inputs.iter().map(|&i| self.values[i].0.clone()).collect();
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let value = match layer.op {
            Op::Input => INPUT.to_owned(),
            Op::Dropout { .. } => inputs.concat(),
            Op::Conv { kernel, stride, groups, bias } => {
                let window = window(kernel, stride, kernel / 2);
                let names = if bias { &["weight", "bias"][..] } else { &["weight"] };
                let operands = self.weights(layer, &inputs, names)?;
                self.node("Conv", name, operands, [window, vec![int("group", groups)]].concat())
            }
            Op::LearnedGroupConv { .. } => {
                let weight = self.masked_weight(layer)?;
                self.node("Conv", name, vec![inputs.concat(), weight], window(1, 1, 0))
            }
            Op::BatchNorm => {
                let names = ["weight", "bias", "running_mean", "running_var"];
                let operands = self.weights(layer, &inputs, &names)?;
                self.node("BatchNormalization", name, operands, vec![float("epsilon", EPSILON)])
            }
            Op::MaxPool { kernel, stride, padding } => {
                self.node("MaxPool", name, owned(&inputs), window(kernel, stride, padding))
            }
            Op::AvgPool { kernel, stride, padding } => {
                let attributes =
                    [window(kernel, stride, padding), vec![int("count_include_pad", 1)]].concat();
                self.node("AveragePool", name, owned(&inputs), attributes)
            }
            Op::GlobalAvgPool => {
                let pooled = self.node("GlobalAveragePool", &format!("{name}.mean"), owned(&inputs), vec![]);
                self.node("Flatten", name, vec![pooled], vec![int("axis", 1)])
            }
            Op::Gather => {
                let operands = self.weights(layer, &inputs, &["index"])?;
                self.node("Gather", name, operands, vec![int("axis", 1)])
            }
            Op::Linear => {
                let operands = self.weights(layer, &inputs, &["weight", "bias"])?;
                self.node("Gemm", name, operands, vec![int("transB", 1)])
            }
            Op::Shuffle { groups } => self.shuffle(layer, inputs.concat(), groups),
            Op::Relu => self.node("Relu", name, owned(&inputs), vec![]),
            Op::Flatten => self.node("Flatten", name, owned(&inputs), vec![int("axis", 1)]),
            Op::Concat => self.node("Concat", name, owned(&inputs), vec![int("axis", 1)]),
            Op::Add => self.node("Add", name, owned(&inputs), vec![]),
        };
        self.values.push((value, layer.out_channels, layer.out_size));
        Ok(())
    }

    /// Names input and output, and gives the graph away.
    pub fn finish(mut self, name: &str, input_doc: &str) -> GraphProto {
        let (images, channels, size) = self.values.first().cloned().unwrap_or_default();
        let (logits, classes, _) = self.values.pop().unwrap_or_default();
        if let Some(node) = self.graph.node.iter_mut().rfind(|node| node.output.contains(&logits)) {
            node.output = vec![OUTPUT.to_owned()];
        }
        self.graph.name = name.to_owned();
        self.graph.input = vec![value_info(&images, &[channels, size, size], input_doc)];
        self.graph.output =
            vec![value_info(OUTPUT, &[classes], "a class each; softmax makes them probabilities")];
        self.graph
    }

    /// Channel k·G + g takes what was channel g·(n/G) + k: as a table of G rows, transposed.
    fn shuffle(&mut self, layer: &Layer, x: String, groups: u32) -> String {
        let (name, n, size) = (&layer.name, layer.in_channels, layer.in_size);
        let groups = u64::from(groups.max(1));
        // A 0 keeps the size that is there: that of the batch.
        let table = self.sizes(&format!("{name}.table"), &[0, groups, n / groups, size, size]);
        let map = self.sizes(&format!("{name}.map"), &[0, n, size, size]);
        let rows = self.node("Reshape", &format!("{name}.rows"), vec![x, table], vec![]);
        let columns = format!("{name}.columns");
        let columns = self.node("Transpose", &columns, vec![rows], vec![ints("perm", [0, 2, 1, 3, 4])]);
        self.node("Reshape", name, vec![columns, map], vec![])
    }

    /// Adds an operator, and names the value that it gives.
    fn node(&mut self, op: &str, name: &str, input: Vec<String>, attribute: Vec<AttributeProto>) -> String {
        let (name, op_type) = (name.to_owned(), op.to_owned());
        self.graph.node.push(NodeProto {
            input,
            output: vec![name.clone()],
            name: name.clone(),
            op_type,
            attribute,
        });
        name
    }

    /// The inputs of an operator: those of its layer, and the tensors that it has by these names.
    fn weights(&mut self, layer: &Layer, inputs: &[&str], names: &[&str]) -> Result<Vec<String>, String> {
        let mut operands = owned(inputs);
        for part in names {
            let name = format!("{}.{part}", layer.name);
            let array = self.tensor(layer, &name)?;
            let tensor = initializer(&name, array)?;
            self.graph.initializer.push(tensor);
            operands.push(name);
        }
        Ok(operands)
    }

    /// The weight of a learned group convolution under its mask.
    fn masked_weight(&mut self, layer: &Layer) -> Result<String, String> {
        let [name, mask] = ["conv.weight", "_mask"].map(|part| format!("{}.{part}", layer.name));
        let (weight, mask) = (self.tensor(layer, &name)?, self.tensor(layer, &mask)?);
        let masked: Vec<f64> = weight.to_f64().iter().zip(mask.to_f64()).map(|(w, m)| w * m).collect();
        let masked = Array::from_f64(weight.shape().to_vec(), &masked)?;
        let tensor = initializer(&name, &masked)?;
        self.graph.initializer.push(tensor);
        Ok(name)
    }

    /// A tensor of a layer, of the shape that the layer says.
    fn tensor(&self, layer: &Layer, name: &str) -> Result<&'a Array, String> {
        let array = self.state.tensors.get(name).ok_or_else(|| format!("tensor {name} is missing"))?;
        let expected = layer.tensors().into_iter().find(|info| info.name == name).map(|info| info.shape);
        let found: Vec<u64> = array.shape().iter().map(|&n| n as u64).collect();
        match expected {
            Some(expected) if expected != found => {
                Err(format!("{name} has shape {found:?}, the spec's network {expected:?}"))
            }
            _ => Ok(array),
        }
    }

    /// A constant shape.
    fn sizes(&mut self, name: &str, sizes: &[u64]) -> String {
        let raw_data = sizes.iter().flat_map(|&n| n.to_le_bytes()).collect();
        let (name, data_type) = (name.to_owned(), DataType::Int64.into());
        let dims = vec![sizes.len() as i64];
        self.graph.initializer.push(TensorProto { dims, data_type, name: name.clone(), raw_data });
        name
    }
}

/// A tensor as ONNX holds it: real numbers in single precision.
fn initializer(name: &str, array: &Array) -> Result<TensorProto, String> {
    let (data_type, raw_data) = match array.to_i64() {
        Some(whole) => (DataType::Int64, whole.into_iter().flat_map(i64::to_le_bytes).collect()),
        None => (DataType::Float, single(name, array)?),
    };
    let dims = array.shape().iter().map(|&n| n as i64).collect();
    Ok(TensorProto { dims, data_type: data_type.into(), name: name.to_owned(), raw_data })
}

/// Real numbers in single precision, as bytes.
fn single(name: &str, array: &Array) -> Result<Vec<u8>, String> {
    let rounded;
    let bytes = if array.dtype() == Dtype::F32 {
        array.bytes()
    } else {
        rounded = array.to_f64().iter().flat_map(|&x| (x as f32).to_le_bytes()).collect::<Vec<u8>>();
        &rounded
    };
    let (elements, _) = bytes.as_chunks();
    match elements.iter().position(|&element| !f32::from_le_bytes(element).is_finite()) {
        Some(i) => Err(format!(
            "{name} has an element (number {i}) that is not a finite number in single precision: {}",
            array.to_f64()[i]
        )),
        None => Ok(bytes.to_vec()),
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// The attributes of whatever moves a square over the map.
fn window(kernel: u32, stride: u32, padding: u32) -> Vec<AttributeProto> {
    let [kernel, stride, padding] = [kernel, stride, padding].map(i64::from);
    vec![ints("kernel_shape", [kernel; 2]), ints("strides", [stride; 2]), ints("pads", [padding; 4])]
}

fn int(name: &str, value: u32) -> AttributeProto {
    let r#type = AttributeType::Int.into();
    AttributeProto { name: name.to_owned(), r#type, i: Some(value.into()), ..AttributeProto::default() }
}

fn ints<const N: usize>(name: &str, values: [i64; N]) -> AttributeProto {
    let r#type = AttributeType::Ints.into();
    AttributeProto { name: name.to_owned(), r#type, ints: values.into(), ..AttributeProto::default() }
}

fn float(name: &str, value: f32) -> AttributeProto {
    let r#type = AttributeType::Float.into();
    AttributeProto { name: name.to_owned(), r#type, f: Some(value), ..AttributeProto::default() }
}

/// An array of single precision numbers, as many of these sizes as a batch has.
fn value_info(name: &str, sizes: &[u64], doc: &str) -> ValueInfoProto {
    let size = |value| Dimension { value: Some(value) };
    let batch = size(dimension::Value::DimParam("batch".to_owned()));
    let rest = sizes.iter().map(|&n| size(dimension::Value::DimValue(n as i64)));
    let shape = Some(TensorShapeProto { dim: std::iter::once(batch).chain(rest).collect() });
    let tensor = type_proto::Tensor { elem_type: DataType::Float.into(), shape };
    let r#type = Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)) });
    ValueInfoProto { name: name.to_owned(), r#type, doc_string: doc.to_owned() }
}
