//! `cnx status`: the list, one experiment in detail (in `detail.rs`), and `--watch`.

mod detail;

use std::io::Write;
use std::ops::ControlFlow;

use cnx_proto::v1::{DescribeRequest, Experiment, State, StatusReply, StatusRequest};
use serde_json::{Value, json};

use crate::args::StatusArgs;
use crate::client::Client;
use crate::context::{Context, ascii_where_harmful, print_json, stdout};
use crate::failure::{Failure, Result};
use crate::follow::{News, follow};
use crate::json::{self, VERSION};
use crate::term::escape::printable;
use crate::term::format::{now_ms, thousands};
use crate::term::screen::{self, Screen};
use crate::view;

/// Experiments that a plain `cnx status` lists.
const DEFAULT_LIMIT: u32 = 50;

pub async fn run(context: &Context, args: &StatusArgs) -> Result {
    let default_limit = if args.selectors.is_empty() && !args.json { DEFAULT_LIMIT } else { 0 };
    let limit = args.limit.unwrap_or(default_limit);
    let request = StatusRequest { selectors: args.selectors.clone(), limit, ..Default::default() };
    if args.watch {
        return watch(context, args, &request).await;
    }
    let mut client = Client::connect(context).await?;
    let reply = client.status(request).await?;
    let detail = match (args.selectors.as_slice(), reply.experiments.as_slice()) {
        ([_], [one]) => {
            let request = DescribeRequest { selector: one.id.to_string() };
            Some(client.rpc.describe(request).await.map_err(|status| client.failure(&status))?.into_inner())
        }
        _ => None,
    };
    if args.json {
        let mut value = as_json(&reply);
        value["detail"] = detail.as_ref().map(json::detail).into();
        return print_json(&value);
    }
    let now = now_ms();
    let lines = match &detail {
        Some(detail) => detail::lines(detail, now, screen::width()),
        None => {
            if let Some(coordinator) = &reply.coordinator {
                context.talk(view::headline(coordinator, now, None));
            }
            view::table(&reply.experiments, now).lines(screen::width())
        }
    };
    if reply.experiments.is_empty() {
        context.talk("no experiments; queue one with `cnx submit FILE`");
        return Ok(());
    }
    if detail.is_none() {
        context.talk("");
    }
    let mut out = stdout();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    if reply.more > 0 {
        let more = thousands(reply.more);
        context.talk(format!("the newest {limit}; {more} more with `cnx status -n 0`"));
    }
    Ok(())
}

fn as_json(reply: &StatusReply) -> Value {
    json!({
        "version": VERSION,
        "coordinator": reply.coordinator.as_ref().map(json::coordinator),
        "experiments": reply.experiments.iter().map(json::experiment).collect::<Vec<_>>(),
        "more": reply.more,
    })
}

async fn watch(context: &Context, args: &StatusArgs, request: &StatusRequest) -> Result {
    let until_final = !request.selectors.is_empty();
    let mut display = if args.json { Display::Json } else { Display::for_terminal() };
    follow(context, request, |news| {
        display.show(context, &news)?;
        Ok(match news {
            News::Update(reply) if until_final && all_final(reply) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
    })
    .await
}

/// Those that the reply shows, and those for which it had no room.
fn all_final(reply: &StatusReply) -> bool {
    reply.more_unfinished == 0 && reply.experiments.iter().all(|e| e.state().is_final())
}

/// How a watch is shown on standard output.
pub enum Display {
    /// Redrawn in place.
    Live(Screen),
    /// A line a change.
    Lines(view::Changes),
    /// A line a change, on standard error: where the data is something else.
    Talk(view::Changes),
    /// An object an update.
    Json,
}

impl Display {
    /// Redrawn where standard output is a terminal.
    pub fn for_terminal() -> Display {
        match screen::size() {
            Some(_) => Display::Live(Screen::default()),
            None => Display::Lines(view::Changes::default()),
        }
    }

    /// Like [`Display::for_terminal`], but standard output is left to data where it is not a terminal.
    pub fn beside_data() -> Display {
        match Display::for_terminal() {
            Display::Lines(changes) => Display::Talk(changes),
            live => live,
        }
    }

    pub fn show(&mut self, context: &Context, news: &News<'_>) -> Result {
        match (self, news) {
            (Display::Live(screen), News::Update(reply)) => {
                screen.draw(&view::frame(reply, now_ms(), screen::size().unwrap_or((80, 24))))?;
            }
            (Display::Live(screen), News::Away(failure)) => {
                let said = format!("{}; waiting for it …", printable(&failure.message));
                screen.draw(&[screen::fitted(&said, screen::width())])?;
            }
            (Display::Lines(changes), News::Update(reply)) => {
                let mut out = stdout();
                for line in changes.lines(reply) {
                    writeln!(out, "{line}")?;
                }
                out.flush()?;
            }
            (Display::Talk(changes), News::Update(reply)) => {
                changes.lines(reply).iter().for_each(|line| context.talk(line));
            }
            (Display::Json, News::Update(reply)) => {
                let mut out = stdout();
                writeln!(out, "{}", ascii_where_harmful(&as_json(reply).to_string()))?;
                out.flush()?;
            }
            (_, News::Away(failure)) => {
                context.talk(format!("{}; waiting for it …", printable(&failure.message)));
            }
        }
        Ok(())
    }
}

/// Follows the selected experiments until all are final. A failure unless all succeeded.
pub async fn wait(context: &Context, selectors: &[String], mut show: Option<Display>) -> Result {
    let request = StatusRequest { selectors: selectors.to_vec(), ..Default::default() };
    let mut last = StatusReply::default();
    follow(context, &request, |news| {
        if let Some(display) = &mut show {
            display.show(context, &news)?;
        }
        if let News::Update(reply) = news
            && all_final(reply)
        {
            last.clone_from(reply);
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    })
    .await?;
    if last.more > 0 {
        last = Client::connect(context).await?.status(request).await?;
    }
    let last = last.experiments;
    let unsuccessful: Vec<&Experiment> = last.iter().filter(|e| e.state() != State::Succeeded).collect();
    if unsuccessful.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = unsuccessful
        .iter()
        .take(10)
        .map(|e| {
            let why = if e.message.is_empty() { String::new() } else { format!(": {}", e.message) };
            format!("\n  {} {} {}{why} (cnx explain {})", e.id, e.name, e.state(), e.id)
        })
        .collect();
    let of = last.len();
    Err(Failure::refused(format!("{} of {of} did not succeed{}", unsuccessful.len(), lines.concat())))
}
