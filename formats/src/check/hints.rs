//! Which key of a spec seems to be another, judged by the names and shapes of a file: of the dense networks, whose keys show
//! in them.

use cnx_proto::Spec;
use cnx_proto::architecture::Form;
use cnx_proto::spec::{Arch, Dataset};

use crate::{Array, StateDict};

/// A key of the spec that seems to be another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// The key, e.g. `model.stages`.
    pub key: &'static str,
    /// What the spec says.
    pub spec: String,
    /// What the file looks like.
    pub file: String,
}

/// What the file looks like, where it differs from the spec.
pub(super) fn hints(state: &StateDict, spec: &Spec, form: Form) -> Vec<Hint> {
    let file = File { state };
    let mut hints = Vec::new();
    let mut hint = |key, said: String, found: Option<String>| {
        if let Some(found) = found.filter(|found| *found != said) {
            hints.push(Hint { key, spec: said, file: found });
        }
    };
    let model = &spec.model;
    hint("model.arch", model.arch.to_string(), file.arch().map(|arch| arch.to_string()));
    hint("data.dataset", spec.data.dataset.to_string(), file.dataset(spec.data.dataset));
    let dense = [Arch::CondenseNet, Arch::DenseNet, Arch::DenseNetLgc];
    if dense.contains(&model.arch) && file.arch().is_none_or(|arch| dense.contains(&arch)) {
        hint("model.stages", model.stages.to_string(), file.stages());
        hint("model.growth", model.growth.to_string(), file.growth());
        hint("model.bottleneck", model.bottleneck.to_string(), file.bottleneck());
        hint("model.group_3x3", model.group_3x3.to_string(), file.group_3x3());
        let (groups, factor) = match form {
            Form::Converted => file.converted_groups(),
            Form::Large => file.masked_groups(),
        };
        hint("model.group_1x1", model.group_1x1.to_string(), groups);
        hint("model.condense_factor", model.condense_factor.to_string(), factor);
    }
    hints
}

struct File<'a> {
    state: &'a StateDict,
}

impl File<'_> {
    fn has(&self, part: &str) -> bool {
        self.state.tensors.keys().any(|name| name.contains(part))
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.state.tensors.get(name).map(Array::shape)
    }

    /// The size of a tensor in one dimension.
    fn size(&self, name: &str, dimension: usize) -> Option<usize> {
        self.shape(name)?.get(dimension).copied()
    }

    fn arch(&self) -> Option<Arch> {
        let reduces = self.has("transition_1.conv.");
        let condenses = self.has("._mask") || self.has("classifier.index");
        Some(match (self.has("denseblock_"), condenses, reduces) {
            (true, true, false) => Arch::CondenseNet,
            (true, true, true) => Arch::DenseNetLgc,
            (true, false, true) => Arch::DenseNet,
            (false, ..) if self.has("layer1.0.conv1.") => Arch::ResNet18,
            _ => return None,
        })
    }

    fn dataset(&self, spec: Dataset) -> Option<String> {
        let names = ["classifier.weight", "classifier.linear.weight", "fc.weight"];
        let classes = names.iter().find_map(|name| self.size(name, 0))?;
        if classes == spec.classes() as usize {
            return None;
        }
        let named = Dataset::ALL.iter().find(|dataset| dataset.classes() as usize == classes);
        Some(named.map_or_else(|| format!("one of {classes} classes"), ToString::to_string))
    }

    /// Dense layers in each block.
    fn blocks(&self) -> Vec<usize> {
        let exists = |block: usize, layer: usize| {
            self.state
                .tensors
                .contains_key(&format!("features.denseblock_{block}.denselayer_{layer}.conv_2.conv.weight"))
        };
        let layers = |block: usize| (1..).take_while(|&layer| exists(block, layer)).count();
        (1..).map(layers).take_while(|&layers| layers > 0).collect()
    }

    fn stages(&self) -> Option<String> {
        dashed(self.blocks().into_iter().map(Some))
    }

    /// The size of a tensor of the first layer of each block.
    fn first_of_blocks(&self, tensor: &str, dimension: usize) -> Vec<Option<usize>> {
        let name = |block: usize| format!("features.denseblock_{block}.denselayer_1.{tensor}");
        (1..=self.blocks().len()).map(|block| self.size(&name(block), dimension)).collect()
    }

    fn growth(&self) -> Option<String> {
        dashed(self.first_of_blocks("conv_2.conv.weight", 0).into_iter())
    }

    fn bottleneck(&self) -> Option<String> {
        let middle = *self.first_of_blocks("conv_1.conv.weight", 0).first()?;
        let growth = *self.first_of_blocks("conv_2.conv.weight", 0).first()?;
        quotient(middle?, growth?)
    }

    fn group_3x3(&self) -> Option<String> {
        let middle = *self.first_of_blocks("conv_1.conv.weight", 0).first()?;
        let seen = *self.first_of_blocks("conv_2.conv.weight", 1).first()?;
        quotient(middle?, seen?)
    }

    /// Groups and condense factor of a converted network, by its first index.
    fn converted_groups(&self) -> (Option<String>, Option<String>) {
        let of = || {
            let index = self.size("features.denseblock_1.denselayer_1.conv_1.index", 0)?;
            let each = self.size("features.denseblock_1.denselayer_1.conv_1.conv.weight", 1)?;
            let inputs = self.size("features.init_conv.weight", 0)?;
            Some((quotient(index, each), quotient(inputs, each)))
        };
        of().unwrap_or_default()
    }

    /// Groups and condense factor of a network whose masks are condensed to the end: after how many rows the first mask
    /// repeats, and what share of a row is left.
    fn masked_groups(&self) -> (Option<String>, Option<String>) {
        let of = || {
            let name = "features.denseblock_1.denselayer_1.conv_1._mask";
            let mask = self.state.tensors.get(name)?;
            let inputs = mask.shape().get(1).copied().filter(|&inputs| inputs > 0)?;
            let values = mask.to_f64();
            let rows: Vec<&[f64]> = values.chunks_exact(inputs).collect();
            let kept = rows.first()?.iter().filter(|&&x| x != 0.0).count();
            // Before condensing all rows are equal, which says nothing.
            if kept == inputs {
                return None;
            }
            let repeats = |&groups: &usize| (groups..rows.len()).all(|row| rows[row] == rows[row - groups]);
            let groups = (1..rows.len()).find(repeats)?;
            Some((Some(groups.to_string()), quotient(inputs, kept)))
        };
        of().unwrap_or_default()
    }
}

fn quotient(a: usize, b: usize) -> Option<String> {
    (b > 0 && a.is_multiple_of(b)).then(|| (a / b).to_string())
}

fn dashed(sizes: impl Iterator<Item = Option<usize>>) -> Option<String> {
    let sizes = sizes.map(|size| Some(size?.to_string())).collect::<Option<Vec<_>>>()?;
    (!sizes.is_empty()).then(|| sizes.join("-"))
}
