//! As much of HTTP/1.1 as one client on loopback needs: one request for each connection.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

/// More than any request of the tests, and less than the memory.
const LARGEST: usize = 64 << 20;

/// A request.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) body: Vec<u8>,
}

impl Request {
    /// Reads it whole; `None` if the connection closes without a word.
    pub(super) fn read(stream: &TcpStream) -> io::Result<Option<Self>> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let (Some(method), Some(path)) = (words.next(), words.next()) else {
            return Err(io::Error::other(format!("no request line: {line:?}")));
        };
        let (mut length, mut chunked) = (0, false);
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.trim_end().split_once(':') else { break };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().map_err(io::Error::other)?,
                "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
                _ => {}
            }
        }
        let mut body = Vec::new();
        if chunked {
            while let size @ 1.. = chunk_size(&mut reader)? {
                fill(&mut reader, &mut body, size)?;
                reader.read_line(&mut String::new())?;
            }
        } else {
            fill(&mut reader, &mut body, length)?;
        }
        Ok(Some(Self { method, path, body }))
    }
}

fn chunk_size(reader: &mut impl BufRead) -> io::Result<usize> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let digits = line.trim().split(';').next().unwrap_or_default();
    usize::from_str_radix(digits, 16).map_err(io::Error::other)
}

fn fill(reader: &mut impl Read, body: &mut Vec<u8>, length: usize) -> io::Result<()> {
    if body.len() + length > LARGEST {
        return Err(io::Error::other("the request is too large"));
    }
    let read = reader.take(length as u64).read_to_end(body)?;
    if read == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// A reply.
#[derive(Debug)]
pub(super) struct Reply {
    code: u16,
    kind: &'static str,
    body: String,
}

impl Reply {
    /// A JSON document.
    pub(super) fn json(code: u16, body: &Value) -> Self {
        Self { code, kind: "application/json", body: body.to_string() }
    }

    /// Server-sent events.
    pub(super) fn events(events: &[Value]) -> Self {
        let body = events.iter().map(|event| {
            let kind = event["type"].as_str().unwrap_or("message");
            format!("event: {kind}\ndata: {event}\n\n")
        });
        Self { code: 200, kind: "text/event-stream", body: body.collect() }
    }

    /// Writes it; the connection is closed after it.
    pub(super) fn write(&self, mut stream: &TcpStream) -> io::Result<()> {
        let Self { code, kind, body } = self;
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {code} Reply\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )?;
        stream.flush()
    }
}
