//! Answers that come in pages, put together; and requests that go in parts.

use cnx_proto::v1::{ResultRow, ResultsRequest, StatusReply, StatusRequest, SubmitReply, SubmitRequest};
use tonic::Status;

use crate::client::Client;
use crate::failure::Result;

/// Bytes of specs in one part of a submission; far below what a message may hold.
const PART_BYTES: usize = 1 << 20;

impl Client {
    /// The experiments that the request selects, and of too many the newest; page after page.
    pub async fn status(&mut self, mut request: StatusRequest) -> Result<StatusReply> {
        let mut whole: Option<StatusReply> = None;
        loop {
            let reply = self.rpc.status(request.clone()).await;
            let page = reply.map_err(|status| self.failure(&status))?.into_inner();
            let (found, oldest) = (page.experiments.len(), page.experiments.first().map(|e| e.id));
            let more = page.more;
            let whole = match &mut whole {
                None => whole.insert(page),
                Some(whole) => {
                    whole.experiments.splice(0..0, page.experiments);
                    (whole.more, whole.more_unfinished) = (page.more, page.more_unfinished);
                    whole
                }
            };
            let enough = request.limit > 0 && found as u32 >= request.limit;
            match oldest {
                Some(oldest) if more > 0 && !enough => request.before = oldest,
                _ => return Ok(std::mem::take(whole)),
            }
            if request.limit > 0 {
                request.limit -= found as u32;
            }
        }
    }

    /// The results of all that is selected, by ID; page after page.
    pub async fn results(&mut self, selectors: Vec<String>) -> Result<Vec<ResultRow>> {
        let mut request = ResultsRequest { selectors, after: 0 };
        let mut rows: Vec<ResultRow> = Vec::new();
        loop {
            let reply = self.rpc.results(request.clone()).await;
            let page = reply.map_err(|status| self.failure(&status))?.into_inner();
            rows.extend(page.rows);
            match rows.last() {
                Some(last) if page.more > 0 && last.id > request.after => request.after = last.id,
                _ => return Ok(rows),
            }
        }
    }

    /// Submits all of it or nothing: in one message where it is small, else in parts.
    ///
    /// # Errors
    /// What the coordinator refused.
    pub async fn submit(&mut self, request: SubmitRequest) -> std::result::Result<SubmitReply, Status> {
        let mut parts = parts(request);
        let reply = match parts.pop() {
            Some(only) if parts.is_empty() => self.rpc.submit(only).await?,
            last => {
                parts.extend(last);
                self.rpc.submit_many(tokio_stream::iter(parts)).await?
            }
        };
        Ok(reply.into_inner())
    }
}

/// Cuts a submission into parts; all but the first hold experiments only.
fn parts(mut request: SubmitRequest) -> Vec<SubmitRequest> {
    let experiments = std::mem::take(&mut request.experiments);
    let mut parts = vec![request];
    let mut bytes = 0;
    for experiment in experiments {
        bytes += experiment.spec_json.len();
        if bytes > PART_BYTES && parts.last().is_some_and(|part| !part.experiments.is_empty()) {
            bytes = experiment.spec_json.len();
            parts.push(SubmitRequest::default());
        }
        if let Some(part) = parts.last_mut() {
            part.experiments.push(experiment);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use cnx_proto::v1::NewExperiment;

    use super::*;

    #[test]
    fn a_large_submission_goes_in_parts_in_order_and_only_the_first_says_more() {
        let experiment = |n: usize| NewExperiment { spec_json: n.to_string().repeat(300_000) };
        let experiments: Vec<_> = (0..10).map(experiment).collect();
        let whole = SubmitRequest {
            experiments: experiments.clone(),
            sweep: "s".into(),
            force: true,
            ..Default::default()
        };
        let parts = parts(whole.clone());
        assert_eq!(parts.iter().map(|p| p.experiments.len()).collect::<Vec<_>>(), [3, 3, 3, 1]);
        assert_eq!(parts.iter().flat_map(|p| p.experiments.clone()).collect::<Vec<_>>(), experiments);
        assert_eq!(SubmitRequest { experiments, ..parts[0].clone() }, whole);
        let only_experiments = |p: &SubmitRequest| {
            *p == SubmitRequest { experiments: p.experiments.clone(), ..Default::default() }
        };
        assert!(parts[1..].iter().all(only_experiments));
    }

    #[test]
    fn a_small_submission_is_one_part_even_if_it_is_empty() {
        assert_eq!(parts(SubmitRequest { sweep: "s".into(), ..Default::default() }).len(), 1);
        let huge = NewExperiment { spec_json: "x".repeat(2 * PART_BYTES) };
        assert_eq!(parts(SubmitRequest { experiments: vec![huge], ..Default::default() }).len(), 1);
    }
}
