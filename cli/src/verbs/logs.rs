//! `cnx logs`.

use std::io::Write;

use cnx_proto::v1::LogsRequest;

use crate::args::LogsArgs;
use crate::client::Client;
use crate::context::{Context, stdout};
use crate::failure::Result;
use crate::term::escape::printable_line;
use crate::term::format::utc;
use crate::term::style::{DIM, paint};

pub async fn run(context: &Context, args: &LogsArgs) -> Result {
    let mut client = Client::connect(context).await?;
    let request =
        LogsRequest { selector: args.selector.clone(), follow: args.follow, tail: args.tail.unwrap_or(0) };
    let stream = client.rpc.logs(request).await;
    let mut stream = stream.map_err(|status| client.failure(&status))?.into_inner();
    let mut attempt = None;
    while let Some(line) = stream.message().await.map_err(|status| client.failure(&status))? {
        // Locked a line at a time: talk of the same attempt stays in its place.
        if attempt.is_some_and(|before| before != line.attempt) || (attempt.is_none() && line.attempt > 1) {
            context.talk(paint(DIM, &format!("-- attempt {}", line.attempt)));
        }
        attempt = Some(line.attempt);
        let mut out = stdout();
        if args.time {
            write!(out, "{}  ", utc(line.at_ms))?;
        }
        writeln!(out, "{}", printable_line(&line.text))?;
    }
    Ok(())
}
