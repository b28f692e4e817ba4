//! What was measured: printed as it comes, and written as JSON at the end.

use std::path::Path;

use serde_json::{Value, json};

/// Which way is better.
#[derive(Clone, Copy)]
pub enum Better {
    /// Rates.
    Higher,
    /// Times and sizes.
    Lower,
}

/// What a figure is held against: another program, a limit of the machine, or an aim.
pub type Peer<'a> = Option<(&'a str, f64)>;

/// All that was measured so far.
#[derive(Default)]
pub struct Figures(Vec<Value>);

impl Figures {
    /// Adds a figure. The ratio is above 1 where cnx is better than what it is held against.
    pub fn add(&mut self, metric: &str, value: f64, unit: &str, better: Better, peer: Peer<'_>) {
        let ratio = peer.map(|(_, peer)| match better {
            Better::Higher => value / peer,
            Better::Lower => peer / value,
        });
        let beside = match (peer, ratio) {
            (Some((name, peer)), Some(ratio)) => format!("  {name}: {}  ({ratio:.2}x)", short(peer)),
            _ => String::new(),
        };
        println!("{metric:<58} {:>10} {unit:<6}{beside}", short(value));
        let (name, peer) = peer.map_or((None, None), |(name, peer)| (Some(name), Some(peer)));
        self.0.push(json!({
            "metric": metric, "value": value, "unit": unit, "peer": name, "peer_value": peer, "ratio": ratio,
        }));
    }

    /// Writes them all.
    pub fn write(&self, file: &Path) {
        std::fs::write(file, format!("{:#}\n", Value::from(self.0.clone()))).expect("figures are written");
        eprintln!("figures in {}", file.display());
    }
}

fn short(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// The value below which a share of them lies.
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    values[((last as f64 * share).round() as usize).min(last)]
}
