//! `cnx submit`.

use std::collections::BTreeSet;
use std::io::Write;

use cnx_proto::Spec;
use cnx_proto::cost::cost;
use cnx_proto::sweep::Loaded;
use cnx_proto::v1::{NewExperiment, SubmitReply, SubmitRequest, Submitted};
use serde_json::{Value, json};

use crate::args::SubmitArgs;
use crate::client::Client;
use crate::configs;
use crate::context::{Context, print_json, stdout};
use crate::failure::{Code, Failure, Result};
use crate::groups::{Group, condense_and_groups, groups};
use crate::json::{self, VERSION};
use crate::term::escape::printable;
use crate::term::format::{count, error, flops, params, ranges};
use crate::term::screen;
use crate::term::style::{DIM, GOOD};
use crate::term::table::{Cell, Column, Left, Right, Table};
use crate::verbs::status::{self, Display};
use crate::view;

/// What is submitted in one request: all of it is queued, or none.
pub struct Batch {
    sweep: Option<String>,
    specs: Vec<Spec>,
    /// Of each spec; without a coordinator nobody knows.
    outcome: Option<SubmitReply>,
}

/// What is asked of the coordinator besides the specs.
#[derive(Debug, Default)]
pub struct Terms {
    /// Queue even what is there already.
    pub force: bool,
    /// Change nothing.
    pub dry_run: bool,
    /// Higher goes first.
    pub priority: i32,
    /// Take the slots of lower priorities.
    pub preempt: bool,
    /// Run once all that these select succeeded.
    pub after: Vec<String>,
}

pub async fn run(context: &Context, args: &SubmitArgs) -> Result {
    let loaded = configs::load(&args.files, &args.set)
        .map_err(|f| Failure { message: format!("{}\nnothing was queued", f.message), ..f })?;
    let mut batches = batches(loaded);
    let terms = Terms {
        force: args.force,
        dry_run: args.dry_run,
        priority: args.priority,
        preempt: args.preempt,
        after: args.after.clone(),
    };
    match Client::connect(context).await {
        Ok(mut client) => offer(&mut client, &terms, &mut batches).await?,
        Err(failure) if args.dry_run && failure.code == Code::Unreachable => {
            context.talk("no coordinator answers, so it is not known which of these are new");
        }
        Err(failure) => return Err(failure),
    }
    if args.wait {
        let ids: Vec<String> = batches.iter().flat_map(Batch::submitted).map(|s| s.id.to_string()).collect();
        print(context, &batches, args.dry_run, args.json)?;
        let display = (!args.json && !context.is_quiet()).then(Display::beside_data);
        return status::wait(context, &ids, display).await;
    }
    show(context, &batches, args.dry_run, args.json)
}

/// Prints what was submitted, and says what to do next.
pub fn show(context: &Context, batches: &[Batch], dry_run: bool, json: bool) -> Result {
    print(context, batches, dry_run, json)?;
    let submitted = batches.iter().flat_map(Batch::submitted).count();
    if let Some(select) = selector(batches).filter(|_| !dry_run) {
        context.talk(next_commands(&select, submitted == 1));
    }
    Ok(())
}

fn print(context: &Context, batches: &[Batch], dry_run: bool, json: bool) -> Result {
    if json {
        return print_json(&as_json(batches, dry_run));
    }
    let mut out = stdout();
    for batch in batches {
        context.talk(headline(batch, dry_run));
        context.talk("");
        for line in table(batch).lines(screen::width().map(|w| w.saturating_sub(2))) {
            writeln!(out, "  {line}")?;
        }
        context.talk("");
    }
    Ok(())
}

/// Files that are no sweeps go together.
fn batches(loaded: Vec<Loaded>) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for one in loaded {
        match batches.last_mut() {
            Some(last) if one.sweep.is_none() && last.sweep.is_none() => last.specs.extend(one.experiments),
            _ => batches.push(Batch::new(one.sweep, one.experiments)),
        }
    }
    batches
}

/// Submits batch after batch, and notes what the coordinator answers.
pub async fn offer(client: &mut Client, terms: &Terms, batches: &mut [Batch]) -> Result {
    let mut queued: Vec<u64> = Vec::new();
    for batch in batches {
        let experiments = batch.specs.iter().map(|s| NewExperiment { spec_json: s.to_json() }).collect();
        let request = SubmitRequest {
            experiments,
            sweep: batch.sweep.clone().unwrap_or_default(),
            force: terms.force,
            dry_run: terms.dry_run,
            priority: terms.priority,
            preempt: terms.preempt,
            after: terms.after.clone(),
        };
        let reply = client.submit(request).await.map_err(|status| {
            let failure = client.failure(&status);
            let said = match queued.as_slice() {
                [] => "nothing was queued".to_owned(),
                before => format!("queued before that: {}", ranges(before)),
            };
            Failure { message: format!("{}\n{said}", failure.message), ..failure }
        })?;
        if reply.experiments.len() != batch.specs.len() {
            let (said, asked) = (reply.experiments.len(), batch.specs.len());
            return Err(Failure::refused(format!(
                "the coordinator answered for {said} of {asked} experiments"
            )));
        }
        queued.extend(reply.experiments.iter().filter(|s| !s.existing).map(|s| s.id));
        batch.outcome = Some(reply);
    }
    Ok(())
}

impl Batch {
    /// Not offered to anybody yet.
    pub fn new(sweep: Option<String>, specs: Vec<Spec>) -> Batch {
        Batch { sweep, specs, outcome: None }
    }

    /// What the coordinator said of each, once it did.
    pub fn submitted(&self) -> impl Iterator<Item = &Submitted> {
        self.outcome.iter().flat_map(|reply| &reply.experiments)
    }

    fn of<'a>(&'a self, group: &Group<'_>) -> Vec<&'a Submitted> {
        let all = self.outcome.as_ref().map_or(&[][..], |reply| &reply.experiments);
        group.members.iter().filter_map(|&i| all.get(i)).collect()
    }
}

/// `sweep cifar10: 21 experiments (7 models × 3 seeds), 21 new`.
fn headline(batch: &Batch, dry_run: bool) -> String {
    let n = batch.specs.len();
    let models = groups(&batch.specs).len();
    let seeds = batch.specs.iter().map(|s| s.train.seed).collect::<BTreeSet<_>>().len();
    let mut line = batch.sweep.as_ref().map(|sweep| format!("sweep {sweep}: ")).unwrap_or_default();
    line.push_str(&count(n, "experiment"));
    if models * seeds == n && models > 1 && seeds > 1 {
        line.push_str(&format!(" ({} × {})", count(models, "model"), count(seeds, "seed")));
    }
    if let Some(reply) = &batch.outcome {
        let existing = reply.experiments.iter().filter(|s| s.existing).count();
        let verb = if dry_run { "new" } else { "queued" };
        line.push_str(&format!(", {} {verb}", n - existing));
        if existing > 0 {
            line.push_str(&format!(", {existing} there already"));
        }
        let free = reply.free_slots;
        if !dry_run && existing < n {
            line.push_str(&match free {
                0 => " (no worker is free; they wait)".to_owned(),
                1 => " (1 slot free)".to_owned(),
                free => format!(" ({free} slots free)"),
            });
        }
    }
    line
}

fn table(batch: &Batch) -> Table {
    let mut table = Table::new(&[
        Column("ID", Right, 0),
        Column("EXPERIMENT", Left, 0),
        Column("STAGES", Left, 3),
        Column("GROWTH", Left, 5),
        Column("C=G", Right, 4),
        Column("FLOPS", Right, 0),
        Column("PARAMS", Right, 0),
        Column("EPOCHS", Right, 1),
        Column("SEEDS", Left, 2),
        Column("PUBLISHED", Right, 1),
        Column("", Left, 0),
    ]);
    for group in groups(&batch.specs) {
        let (spec, cost) = (group.spec, cost(group.spec));
        let ids: Vec<u64> = batch.of(&group).iter().map(|s| s.id).filter(|&id| id > 0).collect();
        let seeds: Vec<u64> = group.members.iter().map(|&i| batch.specs[i].train.seed).collect();
        table.row(vec![
            ranges(&ids).into(),
            spec.name.clone().into(),
            spec.model.stages.to_string().into(),
            spec.model.growth.to_string().into(),
            condense_and_groups(spec).into(),
            flops(cost.flops).into(),
            params(cost.params).into(),
            spec.epochs().map(|n| n.to_string()).unwrap_or_default().into(),
            ranges(&seeds).into(),
            Cell::new(spec.published.top1_error.map(error).unwrap_or_default(), DIM),
            novelty(&batch.of(&group)),
        ]);
    }
    table
}

/// Whether the members of a group are new.
fn novelty(members: &[&Submitted]) -> Cell {
    let existing: Vec<_> = members.iter().filter(|s| s.existing).collect();
    match existing.as_slice() {
        [] if members.is_empty() => "".into(),
        [] => Cell::new("new", GOOD),
        [one] if members.len() == 1 => Cell::new(format!("there already, {}", view::word(one.state())), DIM),
        some if some.len() == members.len() => Cell::new("there already", DIM),
        some => Cell::new(format!("{} new", members.len() - some.len()), GOOD),
    }
}

/// What selects all that was submitted, in as few words as possible.
fn selector(batches: &[Batch]) -> Option<String> {
    match batches {
        [Batch { sweep: Some(sweep), .. }] => Some(sweep.clone()),
        _ => {
            let ids: Vec<String> =
                batches.iter().flat_map(Batch::submitted).map(|s| s.id.to_string()).collect();
            (!ids.is_empty() && ids.len() <= 12).then(|| ids.join(" "))
        }
    }
}

fn next_commands(select: &str, one: bool) -> String {
    let select = printable(select);
    let mut commands = vec![(format!("cnx status {select} --watch"), "follow it")];
    if one {
        commands.push((format!("cnx logs {select} -f"), "its log"));
    } else {
        commands.push((format!("cnx results {select}"), "the table, as far as it is"));
    }
    commands.push((format!("cnx cancel {select}"), "stop it"));
    let width = commands.iter().map(|(command, _)| command.len()).max().unwrap_or(0);
    let lines: Vec<String> = commands.iter().map(|(c, what)| format!("  {c:width$}   {what}")).collect();
    lines.join("\n")
}

fn as_json(batches: &[Batch], dry_run: bool) -> Value {
    let one = |batch: &Batch, i: usize, spec: &Spec| {
        let submitted = batch.outcome.as_ref().and_then(|reply| reply.experiments.get(i));
        let (cost, id) = (cost(spec), submitted.map(|s| s.id).filter(|&id| id > 0));
        json!({
            "id": id, "name": spec.name, "sweep": batch.sweep, "existing": submitted.map(|s| s.existing),
            "state": submitted.filter(|s| s.id > 0).map(|s| json::state(s.state)), "seed": spec.train.seed,
            "spec_hash": spec.hash(), "flops": cost.flops, "params": cost.params,
        })
    };
    let all = batches.iter().flat_map(|b| b.specs.iter().enumerate().map(move |(i, s)| one(b, i, s)));
    json!({ "version": VERSION, "dry_run": dry_run, "experiments": all.collect::<Vec<_>>() })
}
