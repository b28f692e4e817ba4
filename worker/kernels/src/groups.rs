//! Which outputs of a 1×1 convolution see which inputs.

use crate::tile::ROWS;

/// Some outputs, and the inputs that they see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Output channels.
    pub outputs: Vec<u32>,
    /// Input channels.
    pub inputs: Vec<u32>,
}

impl Group {
    /// All outputs, all inputs.
    pub fn whole(inputs: usize, outputs: usize) -> Group {
        Group { outputs: (0..outputs as u32).collect(), inputs: (0..inputs as u32).collect() }
    }

    /// Weights of this group in the order in which the forward pass reads them: for each tile of outputs, for each input, the
    /// weights of the tile; 0 where the tile has fewer.
    pub fn by_outputs(&self, weights: &[f32], inputs: usize, packed: &mut Vec<[f32; ROWS]>) {
        packed.clear();
        for tile in self.outputs.chunks(ROWS) {
            packed.extend(self.inputs.iter().map(|&input| {
                let mut row = [0.0; ROWS];
                for (weight, &output) in row.iter_mut().zip(tile) {
                    *weight = weights[output as usize * inputs + input as usize];
                }
                row
            }));
        }
    }

    /// Likewise for the gradient of the inputs: for each tile of inputs, for each output.
    pub fn by_inputs(&self, weights: &[f32], inputs: usize, packed: &mut Vec<[f32; ROWS]>) {
        packed.clear();
        for tile in self.inputs.chunks(ROWS) {
            packed.extend(self.outputs.iter().map(|&output| {
                let mut row = [0.0; ROWS];
                for (weight, &input) in row.iter_mut().zip(tile) {
                    *weight = weights[output as usize * inputs + input as usize];
                }
                row
            }));
        }
    }
}

/// Joins groups that see the same inputs: before the first condensing stage that is one for all.
pub fn joined(groups: Vec<Group>) -> Vec<Group> {
    let mut joined: Vec<Group> = Vec::new();
    for group in groups {
        match joined.iter_mut().find(|other| other.inputs == group.inputs) {
            Some(other) => other.outputs.extend(group.outputs),
            None => joined.push(group),
        }
    }
    joined
}

/// The inputs that any group sees, ascending.
pub fn used(groups: &[Group]) -> Vec<u32> {
    let mut used: Vec<u32> = groups.iter().flat_map(|group| group.inputs.iter().copied()).collect();
    used.sort_unstable();
    used.dedup();
    used
}

/// The groups by which the gradient of the weights is summed up, in vectors of outputs: those of the convolution, or all of
/// them together where the vectors would be less than full for so long that it costs more than what no group needs.
pub fn for_gradient(groups: &[Group], lanes: usize) -> Vec<Group> {
    let cost = |group: &Group| group.inputs.len() * group.outputs.len().next_multiple_of(lanes);
    let together = Group {
        outputs: groups.iter().flat_map(|group| group.outputs.iter().copied()).collect(),
        inputs: used(groups),
    };
    if groups.iter().map(cost).sum::<usize>() <= cost(&together) { groups.to_vec() } else { vec![together] }
}
