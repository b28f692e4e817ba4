//! How a hostile caller says it: whole calls of arbitrary bytes through tonic, and HTTP/2 by hand that breaks its rules.

use std::time::Duration;

use cnx_proto::v1::Lease;
use prost::bytes::{Buf, BufMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::bytes::Chance;

/// The coordinator, and what an attacker may have got hold of.
pub struct Target {
    pub address: String,
    pub people: String,
    pub workers: String,
    /// A lease that somebody else holds, with its token.
    pub held: Lease,
}

/// With what right somebody calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Without a token.
    Nobody,
    /// With a wrong one.
    Guesser,
    /// A person who asks nonsense.
    Person,
    /// A worker that says nonsense.
    Worker,
    /// A person's token at the workers' door, or the other way round.
    Stray,
}

impl Caller {
    pub const ALL: &'static [Caller] =
        &[Caller::Nobody, Caller::Guesser, Caller::Person, Caller::Worker, Caller::Stray];

    /// What to call, what to say, and the token to show.
    fn call(self, target: &Target, chance: &mut Chance) -> Call {
        let people = |method: &str| format!("/cnx.v1.Experiments/{method}");
        let attach = "/cnx.v1.Workers/Attach".to_owned();
        // Bytes are turned where that cannot make them valid, or nobody with a right sends them.
        let right = matches!(self, Caller::Person);
        let (path, message) = match chance.below(if self == Caller::Worker { 1 } else { 3 }) {
            0 if self != Caller::Person => (attach, chance.greeting(&target.held)),
            1 => {
                let (method, message) = chance.change();
                let turned = if right { message } else { chance.mutate(message) };
                (people(method), turned)
            }
            _ => {
                let (method, message) = chance.question();
                (people(method), chance.mutate(message))
            }
        };
        let known = !chance.one_in(20);
        let path = if known { path } else { path + chance.pick(&["x", "/", "%00", "/../Submit"]) };
        let token = match self {
            Caller::Nobody => None,
            Caller::Guesser => Some(match chance.below(4) {
                0 => "x".repeat(chance.below(10_000)),
                1 => target.people[..chance.below(63)].to_owned(),
                2 => format!("{}0", target.people),
                _ => "0".repeat(64),
            }),
            Caller::Person => Some(target.people.clone()),
            Caller::Worker => Some(target.workers.clone()),
            Caller::Stray if path.contains("v1.Workers") => Some(target.people.clone()),
            Caller::Stray => Some(target.workers.clone()),
        };
        Call { path, known, message, token }
    }
}

/// A call to be.
struct Call {
    path: String,
    /// There is such a method.
    known: bool,
    message: Vec<u8>,
    token: Option<String>,
}

/// One call of arbitrary bytes as HTTP/2 and gRPC would have it. Checks that who has no right hears that.
pub async fn whole_call(target: &Target, channel: Channel, caller: Caller, chance: &mut Chance) {
    let Call { path, known, message, token } = caller.call(target, chance);
    let Ok(path) = PathAndQuery::try_from(path.as_str()) else { return };
    let mut request = Request::new(tokio_stream::once(message));
    if let Some(token) = &token {
        let Ok(value) = format!("Bearer {token}").parse() else { return };
        request.metadata_mut().insert("authorization", value);
    }
    let mut grpc = Grpc::new(channel);
    let called = async {
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut answers = grpc.streaming(request, path.clone(), Raw).await?.into_inner();
        // The first answer says it all; who watches would wait for ever.
        answers.message().await.map(drop)
    };
    let Ok(answer) = tokio::time::timeout(Duration::from_secs(20), called).await else { return };
    let refusal = answer.err();
    let code = refusal.as_ref().map(Status::code);
    // Where the coordinator has refused and hung up on the rest of a long message, HTTP/2's word of that may come first.
    let cut = refusal.as_ref().is_some_and(|status| std::error::Error::source(status).is_some());
    match caller {
        // A token too long for the headers is refused by HTTP/2 itself.
        Caller::Nobody | Caller::Guesser if known => {
            assert!(!matches!(code, None | Some(Code::PermissionDenied)), "{caller:?} {path}: {code:?}");
        }
        Caller::Stray if known && !cut => {
            assert_eq!(code, Some(Code::PermissionDenied), "{path}: {refusal:?}");
        }
        Caller::Stray if known => assert!(code.is_some(), "{path}"),
        // Nothing that it said was right.
        Caller::Worker if known => assert!(code.is_some(), "{path}"),
        _ => {}
    }
}

/// Bytes as they are.
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let rest = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(rest).to_vec()))
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A connection with so many calls, at whose end, or anywhere before, something is wrong. Returns how many were sent.
pub async fn broken_connection(target: &Target, calls: u64, chance: &mut Chance) -> u64 {
    let mut out = Vec::new();
    if !chance.one_in(30) {
        out.extend_from_slice(PREFACE);
        frame(&mut out, SETTINGS, 0, 0, &[]);
    }
    let mut sent = 0;
    for number in 0..calls {
        let stream = 2 * number as u32 + 1;
        broken_call(&mut out, target, stream, chance);
        sent += 1;
    }
    if chance.one_in(3) {
        out.extend(chance.bytes(2000));
    }
    if chance.one_in(10) {
        out.truncate(chance.below(out.len()));
    }
    // Whether it takes all of it, and what it answers, is up to the coordinator; that it ends the matter is not.
    let talk = async {
        let Ok(mut connection) = TcpStream::connect(&target.address).await else { return };
        let _ = connection.write_all(&out).await;
        let _ = connection.shutdown().await;
        let mut answer = vec![0; 16 << 10];
        while connection.read(&mut answer).await.is_ok_and(|n| n > 0) {}
    };
    let ended = tokio::time::timeout(Duration::from_secs(60), talk).await;
    assert!(ended.is_ok(), "the coordinator keeps a connection that its caller has closed");
    sent
}

fn broken_call(out: &mut Vec<u8>, target: &Target, stream: u32, chance: &mut Chance) {
    let caller = chance.pick(Caller::ALL);
    let Call { path, message, token, .. } = caller.call(target, chance);
    let kind = match chance.below(6) {
        0 => "text/html",
        1 => "application/grpc+json",
        2 => "",
        _ => "application/grpc",
    };
    let mut headers = Vec::new();
    for (name, value) in [
        (":method", if chance.one_in(10) { "GET" } else { "POST" }),
        (":scheme", "http"),
        (":path", &path),
        (":authority", "x"),
        ("te", "trailers"),
        ("content-type", kind),
    ] {
        header(&mut headers, name, value);
    }
    if let Some(token) = token {
        header(&mut headers, "authorization", &format!("Bearer {token}"));
    }
    if chance.one_in(20) {
        headers = chance.mutate(headers);
    }
    frame(out, HEADERS, END_HEADERS, stream, &headers);
    // The length that gRPC says need not be the one that there is.
    let length = match chance.below(4) {
        0 => chance.number() as u32,
        _ => message.len() as u32,
    };
    let mut data = vec![u8::from(chance.one_in(10))];
    data.extend(length.to_be_bytes());
    data.extend(message);
    let flags = if chance.one_in(3) { 0 } else { END_STREAM };
    for (i, chunk) in data.chunks(16 << 10).enumerate() {
        let last = (i + 1) * (16 << 10) >= data.len();
        frame(out, DATA, if last { flags } else { 0 }, stream, chunk);
    }
    match chance.below(12) {
        0 => frame(out, RESET, 0, stream, &8_u32.to_be_bytes()),
        1 => {
            let (kind, flags) = (chance.below(12) as u8, chance.below(256) as u8);
            let payload = chance.bytes(100);
            frame(out, kind, flags, chance.number() as u32, &payload);
        }
        // A length that no frame has, and nothing behind it.
        2 if chance.one_in(10) => out.extend([0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1]),
        _ => {}
    }
}

/// A header in HPACK's plainest form: literal, not indexed, not compressed.
fn header(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(0);
    for text in [name, value] {
        let length = text.len();
        if length < 127 {
            out.push(length as u8);
        } else {
            out.push(127);
            let mut rest = length - 127;
            while rest >= 128 {
                out.push((rest % 128) as u8 | 0x80);
                rest /= 128;
            }
            out.push(rest as u8);
        }
        out.extend(text.as_bytes());
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend([kind, flags]);
    out.extend((stream & (u32::MAX >> 1)).to_be_bytes());
    out.extend(payload);
}
