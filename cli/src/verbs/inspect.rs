//! `cnx inspect`: what a config costs, with no coordinator.

use std::collections::BTreeSet;
use std::io::Write;

use cnx_proto::Spec;
use cnx_proto::cost::cost;
use serde_json::{Value, json};

use crate::args::InspectArgs;
use crate::configs;
use crate::context::{print_json, stdout};
use crate::failure::Result;
use crate::groups::{condense_and_groups, groups};
use crate::term::format::{error, flops, params, ranges};
use crate::term::screen;
use crate::term::style::DIM;
use crate::term::table::{Cell, Column, Left, Right, Table};

pub fn run(args: &InspectArgs) -> Result {
    let specs: Vec<Spec> =
        configs::load(&args.files, &args.set)?.into_iter().flat_map(|one| one.experiments).collect();
    if args.json {
        return print_json(&Value::Array(specs.iter().map(as_json).collect()));
    }
    let mut out = stdout();
    for line in table(&specs).lines(screen::width()) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn as_json(spec: &Spec) -> Value {
    let cost = cost(spec);
    json!({
        "name": spec.name, "arch": spec.model.arch, "dataset": spec.data.dataset, "stages": spec.model.stages,
        "growth": spec.model.growth, "condense_factor": spec.model.condense_factor,
        "group_1x1": spec.model.group_1x1, "group_3x3": spec.model.group_3x3, "epochs": spec.train.epochs,
        "seed": spec.train.seed, "flops": cost.flops, "params": cost.params,
        "converted_flops": cost.converted_flops, "converted_params": cost.converted_params,
        "multiply_adds": cost.multiply_adds, "conv_multiply_adds": cost.conv_multiply_adds,
        "published_top1_error": spec.published.top1_error, "published_top5_error": spec.published.top5_error,
        "spec_hash": spec.hash(), "group_hash": spec.group_hash(),
    })
}

/// A row a network: experiments that differ in the seed only cost the same.
fn table(specs: &[Spec]) -> Table {
    let mut table = Table::new(&[
        Column("EXPERIMENT", Left, 0),
        Column("DATASET", Left, 4),
        Column("STAGES", Left, 3),
        Column("GROWTH", Left, 5),
        Column("C=G", Right, 2),
        Column("FLOPS", Right, 0),
        Column("PARAMS", Right, 0),
        Column("CONVERTED", Right, 1),
        Column("PARAMS", Right, 1),
        Column("TOP-1 PUBL.", Right, 0),
        Column("TOP-5 PUBL.", Right, 0),
        Column("SEEDS", Right, 6),
    ]);
    for group in groups(specs) {
        let (spec, cost) = (group.spec, cost(group.spec));
        let converts = spec.model.arch.condenses();
        let converted = |text: String| if converts { text } else { String::new() };
        let published = |percent: Option<f64>| percent.map(error).unwrap_or_default();
        let seeds: BTreeSet<u64> = group.members.iter().map(|&i| specs[i].train.seed).collect();
        let seeds = ranges(&seeds.into_iter().collect::<Vec<_>>());
        table.row(vec![
            spec.name.clone().into(),
            spec.data.dataset.to_string().into(),
            spec.model.stages.to_string().into(),
            spec.model.growth.to_string().into(),
            condense_and_groups(spec).into(),
            flops(cost.flops).into(),
            params(cost.params).into(),
            converted(flops(cost.converted_flops)).into(),
            converted(params(cost.converted_params)).into(),
            Cell::new(published(spec.published.top1_error), DIM),
            Cell::new(published(spec.published.top5_error), DIM),
            Cell::new(seeds, DIM),
        ]);
    }
    table
}
