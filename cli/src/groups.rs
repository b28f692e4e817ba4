//! Specs that differ in nothing but the seed, drawn together: a row of a table.

use std::collections::HashMap;

use cnx_proto::Spec;

/// A group and where its members stand in the list it was made from.
pub struct Group<'a> {
    /// The first member.
    pub spec: &'a Spec,
    /// Places of the members, ascending.
    pub members: Vec<usize>,
}

/// The groups, in the order of their first members.
pub fn groups<'a>(specs: impl IntoIterator<Item = &'a Spec>) -> Vec<Group<'a>> {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut groups: Vec<Group<'a>> = Vec::new();
    for (i, spec) in specs.into_iter().enumerate() {
        let place = *places.entry(spec.group_hash()).or_insert_with(|| {
            groups.push(Group { spec, members: Vec::new() });
            groups.len() - 1
        });
        groups[place].members.push(i);
    }
    groups
}

/// `C=G` of a table: one number where all agree, `-` where nothing condenses or is grouped, nothing for a network of one
/// shape.
pub fn condense_and_groups(spec: &Spec) -> String {
    let (c, g) = (spec.model.condense_factor, spec.model.group_1x1);
    match (c, g) {
        _ if !spec.model.arch.is_dense() => String::new(),
        (1, 1) => "-".to_owned(),
        (c, g) if c == g => c.to_string(),
        (c, g) => format!("{c}/{g}"),
    }
}
