//! The tidy form of a published table: a line a row, fixed columns, empty where nothing was measured or published. Does not say
//! when it was made: the same experiments give the same bytes.

use serde_json::{Map, Value};

use super::matching::Filled;
use super::tables::{Column, Line};
use crate::failure::{Failure, Result};
use crate::verbs::results::csv::{Field, list, mean, provenance_columns, std};
use crate::verbs::results::rows::Row;

/// The fields of one line, by the name of their column.
type Fields = Vec<(String, Field)>;

/// The lines, in the paper's order; each has the same columns.
fn lines(filled: &Filled, provenance: bool) -> impl Iterator<Item = Fields> {
    let lines = filled.table.lines.iter().zip(&filled.measured).zip(&filled.times);
    lines.map(move |((line, measured), &time_s)| fields(filled, line, measured, time_s, provenance))
}

fn fields(
    filled: &Filled,
    line: &Line,
    measured: &[Option<Row>],
    time_s: Option<f64>,
    provenance: bool,
) -> Fields {
    let (flops, params) = line.cost();
    let mut all: Fields = vec![
        ("model".to_owned(), Field::Text(line.label.to_owned())),
        ("flops".to_owned(), Field::Whole(flops)),
        ("published_flops".to_owned(), Field::Whole(from_millions(line.published_flops_m))),
    ];
    if let Some(published) = line.published_params_m {
        all.push(("params".to_owned(), Field::Whole(params)));
        all.push(("published_params".to_owned(), Field::Whole(from_millions(published))));
    }
    for (place, prefix) in filled.table.places.iter().enumerate() {
        let row = measured.get(place).and_then(Option::as_ref);
        for column in filled.table.columns.iter().filter(|column| column.place == place) {
            all.extend(errors(prefix, column, line, row));
        }
        all.push((format!("{prefix}seeds"), row.map_or(Field::Text(String::new()), |r| list(&r.seeds))));
        all.push((format!("{prefix}n"), Field::Whole(row.map_or(0, |r| r.seeds.len() as u64))));
        for column in provenance_columns().filter(|_| provenance) {
            let value = row.filter(|r| !r.seeds.is_empty()).map(column.value);
            all.push((format!("{prefix}{}", column.name), value.unwrap_or(Field::Text(String::new()))));
        }
    }
    if let Some(published) = line.published_time_s {
        all.push(("time_s".to_owned(), Field::Seconds(time_s)));
        all.push(("published_time_s".to_owned(), Field::Seconds(Some(published))));
    }
    all
}

/// What was measured of one error, what was published, and how far they are apart.
fn errors(prefix: &str, column: &Column, line: &Line, row: Option<&Row>) -> Fields {
    let error = column.error.as_str();
    let (measured, converted) = (row.and_then(|r| column.measured(r)), row.and_then(|r| column.converted(r)));
    vec![
        (format!("{prefix}{error}_error"), mean(measured)),
        (format!("{prefix}{error}_error_std"), std(measured)),
        (format!("{prefix}published_{error}_error"), Field::Percent(column.published(line))),
        (format!("{prefix}{error}_delta_to_published"), Field::Percent(column.delta(line, row))),
        (format!("{prefix}converted_{error}_error"), mean(converted)),
        (format!("{prefix}converted_{error}_error_std"), std(converted)),
    ]
}

/// 28.6 → 28,600,000.
fn from_millions(millions: f64) -> u64 {
    (millions * 1e6).round() as u64
}

/// The document, header first.
pub fn csv(filled: &Filled, provenance: bool) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let wrong = |error: csv::Error| Failure::refused(format!("cannot write CSV: {error}"));
    for (i, fields) in lines(filled, provenance).enumerate() {
        if i == 0 {
            writer.write_record(fields.iter().map(|(name, _)| name)).map_err(wrong)?;
        }
        writer.write_record(fields.into_iter().map(|(_, field)| field.into_text())).map_err(wrong)?;
    }
    writer.into_inner().map_err(|error| Failure::refused(format!("cannot write CSV: {error}")))
}

/// The columns of the CSV as keys, an object a line; what is missing is null.
pub fn json(filled: &Filled, provenance: bool) -> Vec<Value> {
    let object = |fields: Fields| -> Map<String, Value> {
        fields.into_iter().map(|(name, field)| (name, field.into_json())).collect()
    };
    lines(filled, provenance).map(|fields| Value::Object(object(fields))).collect()
}
