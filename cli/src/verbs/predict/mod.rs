//! `cnx predict`: the classes that a converted model sees in images, by this program alone.

mod image;
mod labels;

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cnx_engine::{Model, Runner};
use serde_json::{Value, json};

use crate::args::PredictArgs;
use crate::context::{Context, print_json, stdout, warn};
use crate::failure::{Code, Failure, Result};
use crate::json::VERSION;
use crate::source::{self, Source, Which};
use crate::term::escape::{printable, printable_lines};
use crate::term::style::{BAD, BOLD, DIM, paint};
use image::{Input, Reader};
use labels::Labels;

pub async fn run(context: &Context, args: &PredictArgs) -> Result {
    let file = chosen(context, args).await?;
    let model = open(&file)?;
    let labels = Labels::of(model.spec().data.dataset, args.labels.as_deref())?;
    let mut predictor = Predictor::new(model, args.threads)?;
    let mut answers = Vec::new();
    let mut broken = 0;
    for path in &args.images {
        let answer = predictor.answer(path);
        broken += usize::from(answer.is_err());
        if let Err(why) = &answer {
            warn(format!("{} {}", paint(BAD.bold(), "error:"), printable_lines(why)));
        }
        match (args.json, answer) {
            (true, answer) => answers.push(as_json(path, answer, args.top, &labels)),
            (false, Ok(answer)) => show(path, &answer, args.top, &labels)?,
            (false, Err(_)) => {}
        }
    }
    if args.json {
        let model = json!({
            "path": file.display().to_string(), "name": predictor.model.spec().name,
            "dataset": predictor.model.spec().data.dataset, "threads": predictor.threads,
        });
        print_json(&json!({ "version": VERSION, "model": model, "images": answers }))?;
    }
    // Each has been named.
    if broken > 0 { Err(Failure { code: Code::Refused, message: String::new() }) } else { Ok(()) }
}

/// The model's file: of an experiment that condenses, the converted model.
async fn chosen(context: &Context, args: &PredictArgs) -> Result<std::path::PathBuf> {
    match source::find(context, &args.model, args.artifact).await? {
        Source::Stored(stored) if args.artifact.is_none() && stored.spec()?.model.arch.condenses() => {
            stored.choose(Which::Converted)?.path_or("and name the file")
        }
        Source::Stored(stored) => stored.path_or("and name the file"),
        Source::File(path) => Ok(path),
    }
}

/// Opens a model, or says what makes one of it.
pub fn open(file: &Path) -> Result<Model> {
    Model::open(file).map_err(|error| {
        let show = file.display();
        let message = match &error {
            cnx_engine::Error::Unreadable { .. } => error.to_string(),
            _ => format!("{show}: {error}"),
        };
        Failure::refused(message)
    })
}

/// As many threads as were asked for, or as there are CPUs.
pub fn threads(asked: Option<NonZeroUsize>) -> NonZeroUsize {
    asked.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN)
}

struct Predictor {
    model: Arc<Model>,
    reader: Reader,
    runner: Runner,
    threads: NonZeroUsize,
}

/// What the network says of an image.
struct Answer {
    input: Input,
    /// Of all classes, the likeliest first.
    classes: Vec<(usize, f64)>,
    time: Duration,
}

impl Predictor {
    fn new(model: Model, asked: Option<NonZeroUsize>) -> Result<Predictor> {
        let model = Arc::new(model);
        let threads = threads(asked);
        let mut runner = Runner::new(Arc::clone(&model), threads);
        let reader = Reader::new(model.spec().data.dataset);
        // The first run touches all memory for the first time: none of the images shall pay for that.
        runner.logits(&reader.black()).map_err(|error| Failure::refused(error.to_string()))?;
        Ok(Predictor { model, reader, runner, threads })
    }

    fn answer(&mut self, path: &Path) -> std::result::Result<Answer, String> {
        let input = self.reader.read(path)?;
        let start = Instant::now();
        let logits = self.runner.logits(&input.values);
        let time = start.elapsed();
        let logits = logits.map_err(|error| format!("{}: {error}", path.display()))?;
        let classes = likeliest(logits)
            .ok_or_else(|| format!("{}: the network's logits are not finite numbers", path.display()))?;
        Ok(Answer { input, classes, time })
    }
}

/// Classes with their probabilities, the likeliest first; of equals the first. None: the logits are not finite.
fn likeliest(logits: &[f32]) -> Option<Vec<(usize, f64)>> {
    let logits: Vec<f64> = logits.iter().map(|&x| f64::from(x)).collect();
    if logits.iter().any(|x| !x.is_finite()) {
        return None;
    }
    let most = logits.iter().copied().fold(f64::MIN, f64::max);
    let powers: Vec<f64> = logits.iter().map(|x| (x - most).exp()).collect();
    let sum: f64 = powers.iter().sum();
    let mut classes: Vec<(usize, f64)> = powers.iter().map(|power| power / sum).enumerate().collect();
    classes.sort_by(|a, b| b.1.total_cmp(&a.1));
    Some(classes)
}

/// `ms`, in three digits or so.
fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

fn show(path: &Path, answer: &Answer, top: NonZeroUsize, labels: &Labels) -> Result {
    let mut out = stdout();
    let name = path.display().to_string();
    let about = format!("{}; {}", answer.input.about(), milliseconds(answer.time));
    writeln!(out, "{}  {}", paint(BOLD, &printable(&name)), paint(DIM, &about))?;
    for &(class, probability) in answer.classes.iter().take(top.get()) {
        writeln!(out, "  {:>6.2} %  {}", 100.0 * probability, printable(&labels.shown(class)))?;
    }
    Ok(())
}

fn as_json(
    path: &Path,
    answer: std::result::Result<Answer, String>,
    top: NonZeroUsize,
    labels: &Labels,
) -> Value {
    let path = path.display().to_string();
    match answer {
        Ok(answer) => {
            let class = |&(class, probability): &(usize, f64)| json!({ "class": class, "label": labels.name(class), "probability": probability });
            let classes: Vec<Value> = answer.classes.iter().take(top.get()).map(class).collect();
            json!({
                "path": path, "width": answer.input.width, "height": answer.input.height,
                "resized": answer.input.resized, "time_ms": answer.time.as_secs_f64() * 1e3,
                "predictions": classes, "error": null,
            })
        }
        Err(why) => json!({ "path": path, "predictions": null, "error": why }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_those_of_the_softmax_whatever_the_size_of_the_logits() {
        let classes = likeliest(&[1000.0, 1000.0 + 3f32.ln(), -1000.0]).unwrap();
        assert_eq!(classes.iter().map(|c| c.0).collect::<Vec<_>>(), [1, 0, 2]);
        let near = |found: f64, expected: f64| (found - expected).abs() < 1e-4;
        assert!(near(classes[0].1, 0.75) && near(classes[1].1, 0.25) && classes[2].1 == 0.0, "{classes:?}");
    }

    #[test]
    fn of_equals_the_first_comes_first_and_what_is_not_finite_is_refused() {
        assert_eq!(likeliest(&[1.0, 1.0]).unwrap()[0].0, 0);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(likeliest(&[0.0, bad]), None);
        }
    }
}
