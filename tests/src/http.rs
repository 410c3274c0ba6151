//! As much of HTTP/1.1 as the clients of the stand-ins need: one request for each connection.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

/// More than any request of the tests, and less than the memory.
const LARGEST: usize = 64 << 20;

/// A request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// The path with its query.
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// The value of a header, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str())
    }

    /// Reads it whole; `None` if the connection closes without a word.
    pub(crate) fn read(stream: &TcpStream) -> io::Result<Option<Self>> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let (Some(method), Some(path)) = (words.next(), words.next()) else {
            return Err(io::Error::other(format!("no request line: {line:?}")));
        };
        let (mut length, mut chunked, mut headers) = (0, false, Vec::new());
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.trim_end().split_once(':') else { break };
            let (name, value) = (name.to_ascii_lowercase(), value.trim());
            match name.as_str() {
                "content-length" => length = value.parse().map_err(io::Error::other)?,
                "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
                // Whoever waits for it before its body gets it; an unexpected one is ignored by others.
                "expect" => write!(&mut &*stream, "HTTP/1.1 100 Continue\r\n\r\n")?,
                _ => {}
            }
            headers.push((name, value.to_owned()));
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
        Ok(Some(Self { method, path, headers, body }))
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
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) code: u16,
    /// Without the length.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// A text of this type.
    pub(crate) fn new(code: u16, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { code, headers: vec![("content-type".to_owned(), kind.to_owned())], body: body.into() }
    }

    /// A JSON document.
    pub(crate) fn json(code: u16, body: &Value) -> Self {
        Self::new(code, "application/json", body.to_string())
    }

    /// Server-sent events.
    pub(crate) fn events(events: &[Value]) -> Self {
        let body = events.iter().map(|event| {
            let kind = event["type"].as_str().unwrap_or("message");
            format!("event: {kind}\ndata: {event}\n\n")
        });
        Self::new(200, "text/event-stream", body.collect::<String>())
    }

    /// Adds a header.
    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// What goes over the wire.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut text = format!("HTTP/1.1 {} Reply\r\n", self.code);
        for (name, value) in &self.headers {
            text = format!("{text}{name}: {value}\r\n");
        }
        let mut bytes = text.into_bytes();
        // Neither has a body, and neither may say how long it is.
        if !matches!(self.code, 204 | 304) {
            bytes.extend_from_slice(format!("content-length: {}\r\n", self.body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"connection: close\r\n\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Writes it; the connection is closed after it.
    pub(crate) fn write(&self, mut stream: &TcpStream) -> io::Result<()> {
        stream.write_all(&self.bytes())?;
        stream.flush()
    }
}
