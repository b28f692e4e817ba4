//! `cnx results`: rows ([`rows`]), and their forms: a table for people ([`table`]), CSV ([`csv`]), JSON and Markdown.
//! With `--table`, the paper's own tables instead ([`published`]).

mod csv;
pub mod published;
mod rows;
mod table;

use std::io::Write;

use serde_json::{Map, Value, json};

pub use self::published::Name as TableName;
use crate::args::ResultsArgs;
use crate::client::Client;
use crate::context::{Context, print_json, stdout};
use crate::failure::Result;
use crate::json::VERSION;
use crate::term::format::count;
use crate::term::screen;

pub async fn run(context: &Context, args: &ResultsArgs) -> Result {
    let mut client = Client::connect(context).await?;
    let selectors = args.selectors.iter().chain(&args.sweep).cloned().collect();
    let results = client.results(selectors).await?;
    if let Some(name) = args.table {
        return published::print(context, args, name, &results);
    }
    let (rows, unreadable) = rows::rows(&results);
    tell_unreadable(context, unreadable);
    if args.csv {
        stdout().write_all(&csv::csv(&rows, args.provenance)?)?;
        return Ok(());
    }
    if args.json {
        let rows: Vec<Value> = rows.iter().map(|row| as_json(row, args.provenance)).collect();
        return print_json(&json!({ "version": VERSION, "rows": rows }));
    }
    if rows.is_empty() {
        context.talk("no results yet; `cnx status` shows what runs");
        return Ok(());
    }
    let text = match args.markdown {
        true => table::markdown(&rows, args.provenance),
        false => table::people(&rows, args.provenance, screen::width()),
    };
    let mut out = stdout();
    Ok(out.write_all(text.as_bytes())?)
}

fn tell_unreadable(context: &Context, unreadable: usize) {
    if unreadable > 0 {
        let experiments = count(unreadable, "experiment");
        context.talk(format!("{experiments} left out: this version of cnx cannot read the spec"));
    }
}

/// The columns of the CSV as keys; numbers as numbers, what is missing as null.
fn as_json(row: &rows::Row, provenance: bool) -> Value {
    let mut object = Map::new();
    for column in csv::columns(provenance) {
        object.insert(column.name.to_owned(), (column.value)(row).into_json());
    }
    Value::Object(object)
}
