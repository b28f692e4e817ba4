//! Bad luck on purpose: `make chaos KILLS=200 SEED=1`. See [`cnx_e2e::chaos`].

use std::process::ExitCode;

use cnx_e2e::chaos::{Options, run};

fn main() -> ExitCode {
    let number = |name: &str, default: u64| match std::env::var(name) {
        Ok(text) => text.trim().parse().map_err(|_| format!("{name}={text}: expected a whole number")),
        Err(_) => Ok(default),
    };
    let options = (|| {
        let kills =
            u32::try_from(number("CNX_CHAOS_KILLS", 200)?).map_err(|_| "too many kills".to_owned())?;
        Ok::<_, String>(Options { seed: number("CNX_CHAOS_SEED", 1)?, kills })
    })();
    let options = match options {
        Ok(options) => options,
        Err(why) => {
            eprintln!("error: {why}");
            return ExitCode::from(2);
        }
    };
    println!("chaos: seed {}, {} kills; some minutes …", options.seed, options.kills);
    match run(options) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
