//! `cnx results --table`: the paper's tables ([`tables`]), filled in with what was measured ([`matching`]), and their forms:
//! a table for people and in Markdown ([`text`]), CSV and JSON ([`fields`]).

mod fields;
mod matching;
pub mod tables;
#[cfg(test)]
mod tests;
mod text;

use std::io::Write;

use cnx_proto::v1::ResultRow;
use serde_json::{Value, json};

use self::matching::{Filled, NearMiss};
pub use self::tables::Name;
use crate::args::ResultsArgs;
use crate::context::{Context, print_json, stdout};
use crate::failure::Result;
use crate::json::VERSION;
use crate::term::screen;

/// Prints the table of that name with what these experiments measured.
pub fn print(context: &Context, args: &ResultsArgs, name: Name, results: &[ResultRow]) -> Result {
    let filled = matching::fill(tables::table(name)?, results);
    super::tell_unreadable(context, filled.unreadable);
    if args.json {
        return print_json(&as_json(&filled, args.provenance));
    }
    let mut out = stdout();
    if args.csv {
        out.write_all(&fields::csv(&filled, args.provenance)?)?;
        // The CSV has no room for notes.
        filled.near_misses.iter().for_each(|one| context.talk(one));
        return Ok(());
    }
    let text = match args.markdown {
        true => text::markdown(&filled, args.provenance),
        false => text::people(&filled, args.provenance, screen::width()),
    };
    Ok(out.write_all(text.as_bytes())?)
}

fn as_json(filled: &Filled, provenance: bool) -> Value {
    json!({
        "version": VERSION,
        "table": filled.table.name.as_str(),
        "rows": fields::json(filled, provenance),
        "not_counted": filled.near_misses.iter().map(near_miss).collect::<Vec<_>>(),
    })
}

fn near_miss(one: &NearMiss) -> Value {
    let differences: Vec<Value> = one
        .differences
        .iter()
        .map(|d| json!({ "key": d.key, "found": d.found, "expected": d.expected }))
        .collect();
    json!({ "ids": one.ids, "model": one.label, "dataset": one.dataset, "differences": differences })
}
