//! What the paper's tables are: their rows, in its order, each defined by the shipped config of its experiment, so that a
//! model, its recipe and its published errors are written once, in `configs/`. Only what a config does not say stands here:
//! the row's label, and its cost as it is printed.

use clap::ValueEnum;
use cnx_proto::Spec;
use cnx_proto::cost::{Cost, cost};
use cnx_proto::file::{Override, parse};

use crate::failure::{Failure, Result};
use crate::verbs::results::rows::{Mean, Row};

/// A published table, as it is named on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// Model, FLOPs, Params, CIFAR-10, CIFAR-100
    Cifar,
    /// Model, FLOPs, Params, Top-1, Top-5
    Imagenet,
    /// Model, FLOPs, Top-1, Time(s)
    Inference,
}

impl Name {
    /// The name, as it is typed.
    pub fn as_str(self) -> &'static str {
        match self {
            Name::Cifar => "cifar",
            Name::Imagenet => "imagenet",
            Name::Inference => "inference",
        }
    }
}

/// An error that a column shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    Top1,
    Top5,
}

impl Error {
    /// As in the names of CSV columns.
    pub fn as_str(self) -> &'static str {
        match self {
            Error::Top1 => "top1",
            Error::Top5 => "top5",
        }
    }
}

/// A column of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// As the paper heads it.
    pub header: &'static str,
    /// Which of a line's experiments it is about.
    pub place: usize,
    pub error: Error,
}

impl Column {
    /// Of the models after their last epoch.
    pub fn measured(&self, row: &Row) -> Option<Mean> {
        match self.error {
            Error::Top1 => row.top1,
            Error::Top5 => row.top5,
        }
    }

    /// Of those models, converted.
    pub fn converted(&self, row: &Row) -> Option<Mean> {
        match self.error {
            Error::Top1 => row.converted_top1,
            Error::Top5 => row.converted_top5,
        }
    }

    /// What the paper has for that line, in per cent.
    pub fn published(&self, line: &Line) -> Option<f64> {
        let published = &line.specs.get(self.place)?.published;
        match self.error {
            Error::Top1 => published.top1_error,
            Error::Top5 => published.top5_error,
        }
    }

    /// Measured minus published, in percentage points.
    pub fn delta(&self, line: &Line, row: Option<&Row>) -> Option<f64> {
        Some(self.measured(row?)?.mean - self.published(line)?)
    }
}

/// What the paper counts of a network: not of each the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Convolutions, classifier, ReLUs and poolings ([`cnx_proto::cost`]), of the network as it is trained.
    Trained,
    /// The same of the network after conversion.
    Converted,
    /// Convolutions and fully connected layers.
    MultiplyAdds,
    /// Convolutions alone.
    Convolutions,
}

impl Counted {
    /// Multiply-adds and parameters.
    pub fn of(self, cost: &Cost) -> (u64, u64) {
        match self {
            Counted::Trained => (cost.flops, cost.params),
            Counted::Converted => (cost.converted_flops, cost.converted_params),
            Counted::MultiplyAdds => (cost.multiply_adds, cost.params),
            Counted::Convolutions => (cost.conv_multiply_adds, cost.params),
        }
    }
}

/// A row of a table.
#[derive(Debug, Clone)]
pub struct Line {
    /// The model, as the paper calls it.
    pub label: &'static str,
    pub counted: Counted,
    /// Multiply-adds as the paper prints them, in millions.
    pub published_flops_m: f64,
    /// Parameters as the paper prints them, in millions; none in a table without that column.
    pub published_params_m: Option<f64>,
    /// Seconds an image as the paper prints them; none in a table without that column.
    pub published_time_s: Option<f64>,
    /// An experiment a place; the order is that of the table's places.
    pub specs: Vec<Spec>,
}

impl Line {
    /// Multiply-adds and parameters, counted as the paper counts them in this table.
    pub fn cost(&self) -> (u64, u64) {
        self.specs.first().map_or((0, 0), |spec| self.counted.of(&cost(spec)))
    }
}

/// A table. Either all of its lines have parameters (or times), or none.
pub struct Table {
    pub name: Name,
    pub title: &'static str,
    /// What stands before the names of a place's CSV columns; a place is a dataset that is trained on.
    pub places: &'static [&'static str],
    pub columns: &'static [Column],
    pub lines: Vec<Line>,
    /// What a reader must know to compare, a sentence a line.
    pub notes: &'static [&'static str],
}

impl Table {
    /// Whether it has a column of parameters.
    pub fn has_params(&self) -> bool {
        self.lines.iter().any(|line| line.published_params_m.is_some())
    }

    /// Whether it has a column of times.
    pub fn has_times(&self) -> bool {
        self.lines.iter().any(|line| line.published_time_s.is_some())
    }
}

macro_rules! config {
    ($file:literal) => {
        ($file, include_str!(concat!("../../../../../configs/", $file)))
    };
}

type Config = (&'static str, &'static str);

fn spec((file, text): Config, overrides: &[Override]) -> Result<Spec> {
    parse(file, text, overrides)
        .map_err(|problems| Failure::refused(format!("cnx was built with a wrong config: {problems}")))
}

/// The table of that name.
///
/// # Errors
/// A config that was built in cannot be read: a defect, which the tests exclude.
pub fn table(name: Name) -> Result<Table> {
    match name {
        Name::Cifar => cifar(),
        Name::Imagenet => imagenet(),
        Name::Inference => inference(),
    }
}

fn cifar() -> Result<Table> {
    // Label, FLOPs and parameters in millions, and the configs; on CIFAR-100 only two were published.
    type Row = (&'static str, f64, f64, Config, Option<Config>);
    let rows: [Row; 7] = [
        ("CondenseNet-50", 28.6, 0.22, config!("condensenet-50.toml"), None),
        ("CondenseNet-74", 51.9, 0.41, config!("condensenet-74.toml"), None),
        (
            "CondenseNet-86",
            65.8,
            0.52,
            config!("condensenet-86.toml"),
            Some(config!("cifar100/condensenet-86.toml")),
        ),
        ("CondenseNet-98", 81.3, 0.65, config!("condensenet-98.toml"), None),
        ("CondenseNet-110", 98.2, 0.79, config!("condensenet-110.toml"), None),
        ("CondenseNet-122", 116.7, 0.95, config!("condensenet-122.toml"), None),
        (
            "CondenseNet-182",
            513.0,
            4.2,
            config!("condensenet-182.toml"),
            Some(config!("cifar100/condensenet-182.toml")),
        ),
    ];
    let line = |(label, published_flops_m, published_params_m, ten, hundred): Row| {
        // Where nothing was published it is the same experiment on the other dataset.
        let on_cifar100 = || Override::new("data.dataset", "cifar100".into());
        let hundred = hundred.map_or_else(|| spec(ten, &[on_cifar100()]), |config| spec(config, &[]))?;
        let specs = vec![spec(ten, &[])?, hundred];
        Ok(Line {
            label,
            counted: Counted::Trained,
            published_flops_m,
            published_params_m: Some(published_params_m),
            published_time_s: None,
            specs,
        })
    };
    Ok(Table {
        name: Name::Cifar,
        title: "CondenseNet on CIFAR, top-1 error %",
        places: &["cifar10_", "cifar100_"],
        columns: &[
            Column { header: "CIFAR-10", place: 0, error: Error::Top1 },
            Column { header: "CIFAR-100", place: 1, error: Error::Top1 },
        ],
        lines: rows.into_iter().map(line).collect::<Result<_>>()?,
        notes: &[
            "FLOPs and Params are those before conversion, with the classifier of CIFAR-10.",
            "CondenseNet-182 trains for 600 epochs, the others for 300.",
        ],
    })
}

const CONDENSENET_74: [(&str, f64, Config); 2] = [
    ("CondenseNet-74 (C=G=4)", 529.0, config!("imagenet/condensenet-74-g4.toml")),
    ("CondenseNet-74 (C=G=8)", 274.0, config!("imagenet/condensenet-74-g8.toml")),
];

fn imagenet() -> Result<Table> {
    let line = |((label, published_flops_m, config), published_params_m)| {
        Ok(Line {
            label,
            counted: Counted::Converted,
            published_flops_m,
            published_params_m: Some(published_params_m),
            published_time_s: None,
            specs: vec![spec(config, &[])?],
        })
    };
    Ok(Table {
        name: Name::Imagenet,
        title: "CondenseNet on ImageNet, error %",
        places: &[""],
        columns: &[
            Column { header: "Top-1", place: 0, error: Error::Top1 },
            Column { header: "Top-5", place: 0, error: Error::Top5 },
        ],
        lines: CONDENSENET_74.into_iter().zip([4.8, 2.9]).map(line).collect::<Result<_>>()?,
        notes: &["FLOPs and Params are those after conversion, as published."],
    })
}

fn inference() -> Result<Table> {
    let [g4, g8] = CONDENSENET_74;
    let rows = [
        (("VGG-16", 15_300.0, config!("imagenet/vgg-16.toml")), Counted::Convolutions, 354.0),
        (("ResNet-18", 1818.0, config!("imagenet/resnet-18.toml")), Counted::Trained, 8.14),
        (("1.0 MobileNet-224", 569.0, config!("imagenet/mobilenet.toml")), Counted::MultiplyAdds, 1.96),
        (g4, Counted::Converted, 1.89),
        (g8, Counted::Converted, 0.99),
    ];
    let line = |((label, published_flops_m, config), counted, published_time_s)| {
        Ok(Line {
            label,
            counted,
            published_flops_m,
            published_params_m: None,
            published_time_s: Some(published_time_s),
            specs: vec![spec(config, &[])?],
        })
    };
    Ok(Table {
        name: Name::Inference,
        title: "Inference on ImageNet, top-1 error % and seconds an image",
        places: &[""],
        columns: &[Column { header: "Top-1", place: 0, error: Error::Top1 }],
        lines: rows.into_iter().map(line).collect::<Result<_>>()?,
        notes: &[
            "FLOPs as published: of VGG-16 its convolutions alone, of MobileNet these and the classifier, \
             of ResNet-18 and CondenseNet (after conversion) these, the ReLUs and the poolings.",
            "Time(s): one image, converted where the network converts; the faster of libtorch and the native engine, each as its \
             newest job of `cnx bench latency --queue` measured it. The published times are an ARM processor's.",
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = Table> {
        Name::value_variants().iter().map(|&name| table(name).unwrap())
    }

    /// In as many digits as were printed.
    fn as_printed(count: u64, printed_m: f64) -> f64 {
        let decimals = printed_m.to_string().split_once('.').map_or(0, |(_, digits)| digits.len());
        // VGG-16's 15300M has three digits.
        let step = if printed_m > 1e4 { 100.0 } else { 0.1f64.powi(decimals as i32) };
        (count as f64 / 1e6 / step).round() * step
    }

    #[test]
    fn the_counted_costs_are_those_printed() {
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        for line in all().flat_map(|table| table.lines) {
            let (flops, params) = line.cost();
            assert!(
                near(as_printed(flops, line.published_flops_m), line.published_flops_m),
                "{} {flops}",
                line.label
            );
            if let Some(printed) = line.published_params_m {
                assert!(near(as_printed(params, printed), printed), "{} {params}", line.label);
            }
        }
    }

    #[test]
    fn every_line_has_an_experiment_a_place_and_the_published_errors_are_the_papers() {
        for table in all() {
            assert!(table.lines.iter().all(|line| line.specs.len() == table.places.len()));
            assert!(table.columns.iter().all(|column| column.place < table.places.len()));
        }
        let published = |name: Name, place: usize| -> Vec<Option<f64>> {
            table(name).unwrap().lines.iter().map(|line| line.specs[place].published.top1_error).collect()
        };
        let ten = [6.22, 5.28, 5.06, 4.83, 4.63, 4.48, 3.76].map(Some);
        assert_eq!(published(Name::Cifar, 0), ten);
        assert_eq!(published(Name::Cifar, 1), [None, None, Some(23.64), None, None, None, Some(18.47)]);
        assert_eq!(published(Name::Imagenet, 0), [26.2, 29.0].map(Some));
        assert_eq!(published(Name::Inference, 0), [28.5, 30.2, 29.4, 26.2, 29.0].map(Some));
    }

    #[test]
    fn one_model_has_one_recipe_on_both_datasets() {
        for line in table(Name::Cifar).unwrap().lines {
            let [ten, hundred] = &line.specs[..] else { panic!("{}", line.label) };
            assert_eq!((&ten.model, &ten.train), (&hundred.model, &hundred.train), "{}", line.label);
        }
    }
}
