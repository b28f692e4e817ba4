//! What is trained meanwhile: sweeps of small networks on generated images, as many rounds as the bad luck lasts.

use crate::{Pool, tiny_config};

/// Epochs of each experiment: enough to condense to the end (three stages, at a sixth, a third and a half), and to be hit
/// several times.
const EPOCHS: u32 = 12;

/// Seeds of each model in one round.
const SEEDS: u32 = 2;

/// The sweep of a round.
pub fn name(round: u32) -> String {
    format!("round-{round}")
}

/// Writes the sweep of a round, and what it names; its path.
pub fn round(pool: &Pool, round: u32) -> String {
    let config = |name: &str, stages: &str| {
        tiny_config(name, EPOCHS)
            .replace("1-1-1", stages)
            .replace("train_images = 256\ntest_images = 100", "train_images = 128\ntest_images = 64")
            // Kills are the worker's fault, not the experiment's: it must not run out of tries.
            + "max_attempts = 1000\n"
    };
    pool.write("a.toml", &config("chaos-a", "1-1-1"));
    pool.write("b.toml", &config("chaos-b", "1-2-1"));
    let seeds: Vec<u32> = (round * SEEDS..(round + 1) * SEEDS).collect();
    let name = name(round);
    pool.write(
        &format!("{name}.toml"),
        &format!(
            "name = \"{name}\"\nexperiments = [\"a.toml\", \"b.toml\"]\n[grid]\n\"train.seed\" = {seeds:?}\n"
        ),
    )
}
