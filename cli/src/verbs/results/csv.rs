//! The tidy form: one row a group, fixed columns, empty where nothing was measured. Holds no times, so that the same sweep gives
//! the same bytes.

use serde_json::{Value, json};

use super::rows::{Mean, Row};
use crate::failure::{Failure, Result};
use crate::term::escape::printable;
use crate::term::format::exact;

/// What a field holds.
pub enum Field {
    Text(String),
    Whole(u64),
    Perhaps(Option<u64>),
    /// Per cent.
    Percent(Option<f64>),
    Seconds(Option<f64>),
}

impl Field {
    /// As CSV; empty where nothing was measured.
    pub fn into_text(self) -> String {
        match self {
            Field::Text(text) => harmless(&text),
            Field::Whole(n) => n.to_string(),
            Field::Perhaps(n) => n.map(|n| n.to_string()).unwrap_or_default(),
            Field::Percent(percent) => percent.map(exact).unwrap_or_default(),
            Field::Seconds(seconds) => seconds.map(|s| s.to_string()).unwrap_or_default(),
        }
    }

    /// As JSON, with the same digits; null where nothing was measured.
    pub fn into_json(self) -> Value {
        match self {
            Field::Text(text) => json!(text),
            Field::Whole(n) => json!(n),
            Field::Perhaps(n) => json!(n),
            Field::Percent(percent) => json!(percent.and_then(|p| exact(p).parse::<f64>().ok())),
            Field::Seconds(seconds) => json!(seconds),
        }
    }
}

/// A text as a spreadsheet may open it: on one line, and not as a formula, which could send the table elsewhere.
fn harmless(text: &str) -> String {
    let text = printable(text);
    match text.starts_with(['=', '+', '-', '@']) {
        true => format!("'{text}"),
        false => text.into_owned(),
    }
}

/// A column and where its values come from.
pub struct Column {
    pub name: &'static str,
    pub value: fn(&Row) -> Field,
}

/// The mean.
pub fn mean(of: Option<Mean>) -> Field {
    Field::Percent(of.map(|m| m.mean))
}

/// The deviation of two or more.
pub fn std(of: Option<Mean>) -> Field {
    Field::Percent(of.and_then(|m| m.std))
}

/// Values without spaces.
pub fn list<T: ToString>(values: &[T]) -> Field {
    Field::Text(values.iter().map(T::to_string).collect::<Vec<_>>().join(" "))
}

/// Values that may hold spaces themselves.
fn phrases(values: &[String]) -> Field {
    Field::Text(values.join("; "))
}

macro_rules! columns {
    ($row:ident; $($name:ident: $value:expr,)*) => {
        &[$(Column { name: stringify!($name), value: |$row| $value },)*]
    };
}

const COLUMNS: &[Column] = columns! { r;
    model: Field::Text(r.spec.name.clone()),
    dataset: Field::Text(r.spec.data.dataset.to_string()),
    arch: Field::Text(r.spec.model.arch.to_string()),
    stages: Field::Text(r.spec.model.stages.to_string()),
    growth: Field::Text(r.spec.model.growth.to_string()),
    condense_factor: Field::Whole(r.spec.model.condense_factor.into()),
    group_1x1: Field::Whole(r.spec.model.group_1x1.into()),
    group_3x3: Field::Whole(r.spec.model.group_3x3.into()),
    epochs: Field::Perhaps(r.spec.epochs().map(u64::from)),
    flops: Field::Whole(r.cost.flops),
    params: Field::Whole(r.cost.params),
    converted_flops: Field::Whole(r.cost.converted_flops),
    converted_params: Field::Whole(r.cost.converted_params),
    published_top1_error: Field::Percent(r.spec.published.top1_error),
    published_top5_error: Field::Percent(r.spec.published.top5_error),
    top1_error: mean(r.top1),
    top1_error_std: std(r.top1),
    top5_error: mean(r.top5),
    best_top1_error: mean(r.best_top1),
    converted_top1_error: mean(r.converted_top1),
    converted_top1_error_std: std(r.converted_top1),
    converted_top5_error: mean(r.converted_top5),
    delta_to_published: Field::Percent(r.delta()),
    seeds: list(&r.seeds),
    succeeded: Field::Whole(r.seeds.len() as u64),
    submitted: Field::Whole(r.submitted as u64),
};

const PROVENANCE: &[Column] = columns! { r;
    group_hash: Field::Text(r.spec.group_hash()),
    spec_hashes: list(&r.provenance.spec_hashes),
    data_hash: list(&r.provenance.data_hashes),
    commit: list(&r.provenance.commits),
    cnx_version: list(&r.provenance.cnx_versions),
    libtorch_version: list(&r.provenance.libtorch_versions),
    device: phrases(&r.provenance.devices),
    host: phrases(&r.provenance.hosts),
    threads: list(&r.provenance.threads),
    experiments: list(&r.provenance.ids),
    attempts: list(&r.provenance.attempts),
};

/// Only where rows may be of models that were given.
const GIVEN: &[Column] = columns! { r;
    given_model_sha256: Field::Text(r.spec.run.from_sha256.clone().unwrap_or_default()),
};

/// The columns, in order.
pub fn columns(provenance: bool) -> impl Iterator<Item = &'static Column> {
    COLUMNS.iter().chain(PROVENANCE.iter().chain(GIVEN).filter(move |_| provenance))
}

/// The provenance alone, for tables of people.
pub fn provenance_columns() -> impl Iterator<Item = &'static Column> {
    PROVENANCE.iter()
}

/// What says which file a given model was in.
pub fn columns_of_given() -> impl Iterator<Item = &'static Column> {
    GIVEN.iter()
}

/// The document, header first.
pub fn csv(rows: &[Row], provenance: bool) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let wrong = |error: csv::Error| Failure::refused(format!("cannot write CSV: {error}"));
    writer.write_record(columns(provenance).map(|c| c.name)).map_err(wrong)?;
    for row in rows {
        writer.write_record(columns(provenance).map(|c| (c.value)(row).into_text())).map_err(wrong)?;
    }
    writer.into_inner().map_err(|error| Failure::refused(format!("cannot write CSV: {error}")))
}

#[cfg(test)]
mod tests {
    use super::super::rows::{rows, tests::example};
    use super::*;

    #[test]
    fn the_csv_is_tidy_and_its_columns_are_fixed() {
        let text = String::from_utf8(csv(&rows(&example()).0, false).unwrap()).unwrap();
        let expected = "\
model,dataset,arch,stages,growth,condense_factor,group_1x1,group_3x3,epochs,flops,params,converted_flops,converted_params,\
published_top1_error,published_top5_error,top1_error,top1_error_std,top5_error,best_top1_error,converted_top1_error,converted_top1_error_std,\
converted_top5_error,delta_to_published,seeds,succeeded,submitted
condensenet-50,cifar10,condensenet,8-8-8,8-16-32,4,4,4,300,28641834,216506,CF50,CP50,\
6.22,,6.31,0.09,0.631,6.30,6.33,0.09,0.633,0.09,0 1 2,3,3
condensenet-74,cifar10,condensenet,12-12-12,8-16-32,4,4,4,300,51897066,405466,CF74,CP74,\
6.22,,5.30,,0.53,5.29,5.32,,0.532,-0.92,0,1,2
condensenet-86,cifar10,condensenet,14-14-14,8-16-32,4,4,4,300,65816394,520202,CF86,CP86,\
6.22,,,,,,,,,,,0,1
";
        // The converted model's classifier loses half of its inputs: 5 · channels multiply-adds and weights.
        let mut expected = expected.to_owned();
        for (row, name) in rows(&example()).0.iter().zip(["50", "74", "86"]) {
            expected = expected
                .replace(&format!("CF{name}"), &row.cost.converted_flops.to_string())
                .replace(&format!("CP{name}"), &row.cost.converted_params.to_string());
        }
        assert_eq!(text, expected);
    }

    #[test]
    fn no_text_is_a_formula_or_breaks_its_line() {
        for (text, expected) in [
            ("=HYPERLINK(\"http://x\",A1)", "'=HYPERLINK(\"http://x\",A1)"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "\\t=1"),
            ("a\r\nb\u{9b}", "a\\r\\nb\\u{9b}"),
            ("condensenet-86", "condensenet-86"),
        ] {
            assert_eq!(Field::Text(text.to_owned()).into_text(), expected);
        }
        assert_eq!(Field::Percent(Some(-0.5)).into_text(), "-0.50");
    }

    #[test]
    fn provenance_adds_columns_at_the_end() {
        let text = String::from_utf8(csv(&rows(&example()).0, true).unwrap()).unwrap();
        let header = text.lines().next().unwrap();
        assert!(header.contains(",submitted,group_hash,spec_hashes,"), "{header}");
        assert!(text.lines().nth(1).unwrap().ends_with(",1 2 3,1 1 1,"), "{text}");
    }
}
