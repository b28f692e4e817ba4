//! The command line itself: verbs, flags, help texts. What a verb does is in the file of its name.

mod inference;
mod operations;
mod queue;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};
use cnx_proto::file::Override;
use cnx_proto::spec::Engine;

use crate::source::Which;
use crate::verbs::data::DataVerb;
use crate::verbs::export::Format;
use crate::verbs::results::TableName;

pub use inference::{BenchVerb, LatencyArgs, PredictArgs};
pub use operations::{BackupArgs, DoctorArgs, RestoreArgs};
pub use queue::{CancelArgs, ExplainArgs, PauseArgs, PriorityArgs, ResumeArgs, RetryArgs, WaitArgs};

const AFTER_HELP: &str = "\
Examples:
  cnx up                                     a coordinator and workers, here
  cnx submit configs/condensenet-86.toml     one experiment
  cnx submit configs/sweeps/cifar10.toml     a sweep: the table of the paper
  cnx status --watch                         what runs, how far, what it reached
  cnx results --csv > cifar10.csv            measured beside published
  cnx results --table cifar                  the paper's own table

Exit codes:
  0  fine
  1  failed or refused (wait, --wait: an experiment did not succeed)
  2  wrong usage, or a config with problems
  3  the coordinator cannot be reached
  4  not authorised: no token, or a wrong one
  5  wait: the time given with --timeout was over first

Environment:
  CNX_STATE    state folder (else $XDG_STATE_HOME/cnx, else ~/.local/state/cnx)
  CNX_SERVER   URL of the coordinator (else the one in the state folder)
  CNX_TOKEN    its token (else the file `token` in the state folder)
  CNX_TLS_CA, CNX_TLS_CERT, CNX_TLS_KEY   as --tls-ca, --tls-cert, --tls-key
  CNX_DATA     folder of the datasets (else ~/.cache/cnx)
  CNX_WORKER   the program cnx-worker (else the one beside cnx, else in PATH)
  CNX_DAEMON   the program cnxd (likewise)
  NO_COLOR     no colours";

/// CondenseNet experiments: submit them, watch them, print the tables.
#[derive(Debug, Parser)]
#[command(name = "cnx", version, after_help = AFTER_HELP, max_term_width = 110, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Args)]
pub struct Global {
    /// State folder of the coordinator
    #[arg(long, global = true, env = "CNX_STATE", value_name = "DIR", value_hint = ValueHint::DirPath, hide_env = true)]
    pub state: Option<PathBuf>,
    /// Coordinator to talk to, e.g. https://gpu-box:7420
    #[arg(long, global = true, env = "CNX_SERVER", value_name = "URL", hide_env = true)]
    pub server: Option<String>,
    #[command(flatten)]
    pub tls: cnx_access::TlsArgs,
    /// Print data and errors only
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    Submit(SubmitArgs),
    Status(StatusArgs),
    Logs(LogsArgs),
    Explain(ExplainArgs),
    Wait(WaitArgs),
    Cancel(CancelArgs),
    Retry(RetryArgs),
    Pause(PauseArgs),
    Resume(ResumeArgs),
    Priority(PriorityArgs),
    Results(ResultsArgs),
    Workers(WorkersArgs),
    Inspect(InspectArgs),
    Import(ImportArgs),
    Evaluate(EvaluateArgs),
    Convert(ConvertArgs),
    Export(ExportArgs),
    Predict(PredictArgs),
    /// Measure this machine
    #[command(subcommand)]
    Bench(BenchVerb),
    /// Generate, download, import, pack or check a dataset
    #[command(subcommand)]
    Data(DataVerb),
    Up(UpArgs),
    Down(DownArgs),
    Backup(BackupArgs),
    Restore(RestoreArgs),
    Doctor(DoctorArgs),
    Completions(CompletionsArgs),
}

/// Queue experiments: configs or sweeps
///
/// All experiments of a file are queued, or none. What is identical to an experiment that waits, runs or is done
/// is named, not queued again; submitting a sweep again adds what is missing.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cnx submit configs/condensenet-86.toml
  cnx submit configs/condensenet-86.toml --set train.seed=3 --set train.epochs=10
  cnx submit configs/sweeps/cifar10.toml --dry-run
  cnx submit configs/condensenet-86.toml --priority 10 --preempt
  cnx submit configs/condensenet-182.toml --after cifar10
  cnx submit configs/sweeps/demo.toml --wait && cnx results demo")]
pub struct SubmitArgs {
    /// Config or sweep files (TOML)
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
    /// Set a key over what the file says; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<Override>,
    /// Say what would be queued, and queue nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Queue even what is identical to an existing experiment
    #[arg(long)]
    pub force: bool,
    /// Higher goes first; equals take turns, sweep by sweep, and within a sweep the oldest goes first
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub priority: i32,
    /// Where no slot is free, take that of a running experiment of lower priority: it is checkpointed, goes back to
    /// the queue, and loses no try
    #[arg(long)]
    pub preempt: bool,
    /// Run only once all of these succeeded (IDs, names, sweep names, or `last`); may be repeated. If one of them fails or
    /// is cancelled, these fail too, and `cnx retry` of that one brings them back
    #[arg(long, value_name = "SELECTOR")]
    pub after: Vec<String>,
    /// Wait until all are final; exit 0 only if all succeeded
    #[arg(long, conflicts_with = "dry_run")]
    pub wait: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What runs, how far, what it reached
///
/// With one experiment selected: its spec, attempts, error curve, artifacts and events.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cnx status                     the newest experiments
  cnx status 12                  one experiment in detail
  cnx status cifar10 --watch     a sweep, live, until all of it is final
  cnx status last --json | jq .experiments[0].state")]
pub struct StatusArgs {
    /// IDs, names, sweep names, or `last`; none: everything
    #[arg(value_name = "SELECTOR")]
    pub selectors: Vec<String>,
    /// Follow, until all that is selected is final (with nothing selected: until interrupted)
    #[arg(short, long)]
    pub watch: bool,
    /// At most so many experiments, the newest; 0: all [default: 50, all with selectors or --json]
    #[arg(short = 'n', long, value_name = "N")]
    pub limit: Option<u32>,
    /// Print JSON (with --watch: an object a line)
    #[arg(long)]
    pub json: bool,
}

/// The log of an experiment
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cnx logs 12 -f
  cnx logs last --tail 20
  cnx logs condensenet-86 | grep -i condens")]
pub struct LogsArgs {
    /// ID or name, or `last`
    #[arg(value_name = "SELECTOR", default_value = "last")]
    pub selector: String,
    /// Follow, until the experiment is final
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last N lines first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub tail: Option<u32>,
    /// Put the time (UTC) before each line
    #[arg(short, long)]
    pub time: bool,
}

/// The result table: measured beside published
///
/// A row is a group of experiments that differ in the seed only: mean ± sample standard deviation of the errors in
/// per cent. What was not measured is empty; what was cancelled is left out. Of experiments with the same spec the newest that succeeded counts.
/// The CSV holds no times: the same sweep gives the same bytes.
///
/// With --table, a row is one of the paper's, in its order and columns, measured or not. Experiments count in it by what
/// they do, not by their names: model, data and training must be as in the shipped configs, whatever the seed. What
/// differs is named.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cnx results
  cnx results cifar10 --csv > cifar10.csv
  cnx results --table cifar     the paper's own table, measured beside published
  cnx results --table inference --csv > inference.csv
  cnx results --sweep cifar10 --markdown --provenance
  cnx results --json | jq '.rows[] | [.model, .top1_error]'")]
pub struct ResultsArgs {
    /// IDs, names, sweep names, or `last`; none: everything
    #[arg(value_name = "SELECTOR")]
    pub selectors: Vec<String>,
    /// A sweep; the same as naming it as a selector
    #[arg(long, value_name = "NAME")]
    pub sweep: Vec<String>,
    /// The paper's table of that name
    #[arg(long, value_enum, value_name = "TABLE")]
    pub table: Option<TableName>,
    /// Print CSV
    #[arg(long, group = "form")]
    pub csv: bool,
    /// Print JSON
    #[arg(long, group = "form")]
    pub json: bool,
    /// Print a Markdown table
    #[arg(long, group = "form")]
    pub markdown: bool,
    /// Add how each number came about: spec and data hash, commit, versions, device, attempts
    #[arg(long)]
    pub provenance: bool,
}

/// The workers of the coordinator
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cnx workers\n  cnx workers --json | jq '.workers[].name'")]
pub struct WorkersArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// FLOPs and parameters of configs, beside the published errors (needs no coordinator)
///
/// Counted as the paper counts: multiply-adds of convolutions and classifier, and the work of ReLUs and poolings; a learned
/// group convolution at its share 1/C. JSON has `multiply_adds` of convolutions and fully connected layers alone as well,
/// and `conv_multiply_adds` of the convolutions.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cnx inspect configs/*.toml
  cnx inspect configs/condensenet-86.toml --set model.condense_factor=8
  cnx inspect --json configs/sweeps/cifar10.toml | jq '.[].flops'")]
pub struct InspectArgs {
    /// Config or sweep files (TOML)
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
    /// Set a key over what the file says; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<Override>,
    /// Print JSON: an array with an object an experiment
    #[arg(long)]
    pub json: bool,
}

/// Make a model of a checkpoint of PyTorch (needs neither PyTorch nor a coordinator)
///
/// Reads what torch.save writes, today and before 1.6, and safetensors, whatever the file is called; names may begin with
/// `module.`, the model may be converted or not. A pickle is never run: one that asks for more than a state dict needs is
/// refused. What does not fit the spec, by name, shape or value, is told, and then nothing is written.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cnx import best.pth.tar -o best.safetensors --spec configs/condensenet-86.toml
  cnx import best.pth.tar -o best.safetensors --spec mine.toml --json
  cnx evaluate best.safetensors        it carries its spec from here on")]
pub struct ImportArgs {
    /// Checkpoint or state dict
    #[arg(value_name = "CHECKPOINT", value_hint = ValueHint::FilePath)]
    pub checkpoint: PathBuf,
    /// File to write, in safetensors
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
    #[command(flatten)]
    pub spec: SpecOf,
    /// Print JSON: what was found, and all problems
    #[arg(long)]
    pub json: bool,
}

/// Measure the errors of a model on its test images: here (by cnx-worker), or queued for a worker
///
/// MODEL is a file, or an experiment whose model is meant. With --queue a worker does it, as an experiment named
/// after the model; the worker must see a file under the same path.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cnx evaluate best.safetensors
  cnx evaluate weights.safetensors --spec configs/condensenet-86.toml --data ~/.cache/cnx
  cnx evaluate 12 --artifact best
  cnx evaluate converted.safetensors --engine native
  cnx evaluate 12 --queue --wait --json")]
pub struct EvaluateArgs {
    /// Checkpoint or model; or the ID or name of an experiment
    #[arg(value_name = "MODEL", value_hint = ValueHint::FilePath)]
    pub model: PathBuf,
    /// Which model of an experiment [default: final]
    #[arg(long, value_enum, value_name = "WHICH")]
    pub artifact: Option<Which>,
    #[command(flatten)]
    pub spec: SpecOf,
    /// Folder of the datasets; with --queue, the worker's
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data: Option<PathBuf>,
    /// Device that computes: cpu, or cuda:N
    #[arg(long, value_name = "DEVICE", conflicts_with = "queue")]
    pub device: Option<String>,
    /// What runs the model: libtorch, or native, the engine of `cnx predict` [default: libtorch]
    #[arg(long, value_name = "ENGINE", value_parser = inference::engine)]
    pub engine: Option<Engine>,
    #[command(flatten)]
    pub queue: QueueArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Convert a trained model's learned group convolutions to group convolutions: here, or queued for a worker
///
/// MODEL is a file, or an experiment whose model is meant. With --queue a worker does it, as an experiment named
/// after the model, whose artifact is the converted one; the worker must see a file under the same path.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cnx convert final.safetensors -o converted.safetensors
  cnx convert weights.safetensors --spec configs/condensenet-86.toml -o converted.safetensors
  cnx convert 12 --artifact best -o best-converted.safetensors
  cnx convert final.safetensors --queue --wait -o converted.safetensors")]
pub struct ConvertArgs {
    /// Checkpoint or model; or the ID or name of an experiment
    #[arg(value_name = "MODEL", value_hint = ValueHint::FilePath)]
    pub model: PathBuf,
    /// Which model of an experiment [default: final]
    #[arg(long, value_enum, value_name = "WHICH")]
    pub artifact: Option<Which>,
    #[command(flatten)]
    pub spec: SpecOf,
    /// File to write; with --queue, a copy of the artifact
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath, required_unless_present = "queue")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub queue: QueueArgs,
    /// With --queue: print JSON
    #[arg(long, requires = "queue")]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct QueueArgs {
    /// Queue it for a worker of the coordinator instead of doing it here
    #[arg(long)]
    pub queue: bool,
    /// With --queue: wait until it is done, and print what came of it; exit 0 only if it succeeded
    #[arg(long, requires = "queue")]
    pub wait: bool,
    /// With --queue: even if the same was queued or done before
    #[arg(long, requires = "queue")]
    pub force: bool,
}

/// A model in a format that others read, with a card that says how it came about
///
/// MODEL is a file, or an experiment whose model is meant: as ONNX the converted one, as a state dict the final one.
/// Beside FILE stand FILE.card.json and FILE.card.md: spec, cost, errors, data, versions, attempts.
///
/// pth is a bare state dict under the reference's names: model.load_state_dict(torch.load(FILE, weights_only=True)).
/// onnx takes `images` [n, 3, height, width], normalised, and gives `logits` [n, classes], in float32.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cnx export 12 --format onnx                      condensenet-86-converted.onnx
  cnx export last --artifact best -o best.pth
  cnx export final.safetensors --format onnx -o model.onnx --json")]
pub struct ExportArgs {
    /// Checkpoint or model; or the ID or name of an experiment
    #[arg(value_name = "MODEL", value_hint = ValueHint::FilePath)]
    pub model: PathBuf,
    /// Format to write [default: what the name of FILE ends in]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// File to write [default: in this folder, named after the model]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// Which model of an experiment [default: final; with --format onnx, converted where the network condenses]
    #[arg(long, value_enum, value_name = "WHICH")]
    pub artifact: Option<Which>,
    #[command(flatten)]
    pub spec: SpecOf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct SpecOf {
    /// Config of the model; files that cnx wrote carry their own
    #[arg(long = "spec", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Set a key over what the config says; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "file")]
    pub set: Vec<Override>,
}

/// Start a coordinator and a worker per device on this machine, in the background
///
/// What runs already is left alone. Devices are the GPUs that nvidia-smi names, else the CPU.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cnx up
  cnx up --cpu --slots 2
  cnx up --listen 0.0.0.0:7420                     for other machines too, once `cnxd tls init` made certificates
  cnx --state /tmp/try up --listen 127.0.0.1:0     a second one, apart from the first")]
pub struct UpArgs {
    /// Workers; more than there are GPUs share them [default: one a GPU, else one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=256))]
    pub workers: Option<u32>,
    /// Experiments that each worker runs at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub slots: u32,
    /// Use the CPU even where there are GPUs
    #[arg(long)]
    pub cpu: bool,
    /// Address of the coordinator
    #[arg(long, value_name = "ADDR", default_value_t = format!("127.0.0.1:{}", cnx_proto::state_dir::DEFAULT_PORT))]
    pub listen: String,
}

/// Stop what `cnx up` started
///
/// Experiments that run are checkpointed and go back to the queue; the next `cnx up` goes on with them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cnx down\n  cnx down --timeout 300")]
pub struct DownArgs {
    /// Seconds that each may take before it is killed
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
}

/// Print a completion script
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cnx completions bash > ~/.local/share/bash-completion/completions/cnx
  cnx completions zsh > ~/.zfunc/_cnx
  cnx completions fish > ~/.config/fish/completions/cnx.fish")]
pub struct CompletionsArgs {
    /// Your shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}
