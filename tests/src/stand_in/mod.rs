//! A stand-in for the service that `claude` talks to: `POST /v1/messages` on loopback, by a script.
//!
//! - [`StandIn`] serves a script of [`Turn`]s to one `claude`, one turn for each request that offers its tools
//! - [`Heard`] is what it was asked and what its tools brought back
//!
//! Not inside: a model. What it cannot make sense of is recorded as an error, which a test then fails on.

mod wire;

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use serde_json::Value;

use crate::http;

/// What the stand-in answers with once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Words, which end the conversation.
    Text(String),
    /// A call of the Bash tool with this command.
    Bash(String),
}

/// What a tool brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolResult {
    /// Its output, as `claude` passes it on.
    pub text: String,
    /// Whether it failed, or was not permitted.
    pub is_error: bool,
}

/// What was asked.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Method and path of every request.
    pub requests: Vec<String>,
    /// The result of each call, in the script's order.
    pub results: Vec<ToolResult>,
    /// What did not make sense: a result that was not brought back, a request beyond the script.
    pub errors: Vec<String>,
}

#[derive(Debug)]
struct State {
    script: VecDeque<Turn>,
    served: usize,
    /// The id of the call whose result the next request has to bring.
    open: Option<String>,
    heard: Heard,
}

/// The running service.
#[derive(Debug)]
pub struct StandIn {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    closing: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

impl StandIn {
    /// Serves `script` on a free port of the loopback interface.
    ///
    /// # Panics
    /// When there is no loopback interface.
    #[must_use]
    pub fn start(script: impl IntoIterator<Item = Turn>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let address = listener.local_addr().expect("a bound socket has an address");
        let script = script.into_iter().collect();
        let state = Arc::new(Mutex::new(State { script, served: 0, open: None, heard: Heard::default() }));
        let closing = Arc::new(AtomicBool::new(false));
        let listening = thread::spawn({
            let (state, closing) = (Arc::clone(&state), Arc::clone(&closing));
            move || listen(&listener, &state, &closing)
        });
        Self { address, state, closing, listening: Some(listening) }
    }

    /// The value of `ANTHROPIC_BASE_URL`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was heard so far.
    #[must_use]
    pub fn heard(&self) -> Heard {
        lock(&self.state).heard.clone()
    }

    /// The whole script was served, each call's result came back, and nothing else went wrong.
    ///
    /// # Panics
    /// When that does not hold.
    pub fn assert_played(&self) {
        let state = lock(&self.state);
        assert!(state.heard.errors.is_empty(), "{:#?}", state.heard);
        assert!(state.script.is_empty(), "not asked for: {:?}; {:#?}", state.script, state.heard);
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        // Wakes the listener, so that it sees that it is over.
        drop(TcpStream::connect(self.address));
        if let Some(listening) = self.listening.take() {
            let _ = listening.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn listen(listener: &TcpListener, state: &Arc<Mutex<State>>, closing: &AtomicBool) {
    for stream in listener.incoming() {
        if closing.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let state = Arc::clone(state);
        // A connection that is opened ahead and says nothing must not keep others waiting.
        thread::spawn(move || match http::Request::read(&stream) {
            Ok(Some(request)) => {
                let reply = lock(&state).answer(&request);
                // Its asker may have been ended meanwhile: that is what the tests are about.
                let _ = reply.write(&stream);
            }
            Ok(None) => {}
            Err(error) => lock(&state).heard.errors.push(format!("reading a request: {error}")),
        });
    }
}

impl State {
    fn answer(&mut self, request: &http::Request) -> http::Reply {
        let line = format!("{} {}", request.method, request.path);
        self.heard.requests.push(line.clone());
        let path = request.path.split('?').next().unwrap_or_default();
        match (request.method.as_str(), path) {
            ("HEAD" | "GET", "/") => http::Reply::json(200, &Value::Null),
            ("POST", "/v1/messages") => match serde_json::from_slice::<Value>(&request.body) {
                Ok(body) => self.message(&body),
                Err(error) => self.refuse(400, format!("{line}: {error}")),
            },
            ("POST", "/v1/messages/count_tokens") => {
                http::Reply::json(200, &serde_json::json!({ "input_tokens": 100 }))
            }
            _ => self.refuse(404, line),
        }
    }

    fn refuse(&mut self, code: u16, why: String) -> http::Reply {
        let error = serde_json::json!({ "type": "not_found_error", "message": why });
        self.heard.errors.push(why);
        http::Reply::json(code, &serde_json::json!({ "type": "error", "error": error }))
    }

    fn message(&mut self, body: &Value) -> http::Reply {
        let streamed = body["stream"] == true;
        // Asides, such as one for a title, offer no tools and are no part of the script.
        let offers_tools =
            body["tools"].as_array().is_some_and(|tools| tools.iter().any(|tool| tool["name"] == "Bash"));
        let (turn, id) = if offers_tools {
            self.take_result(body);
            let Some(turn) = self.script.pop_front() else {
                return self.refuse(400, "asked beyond the script".to_owned());
            };
            self.served += 1;
            let id = format!("toolu_{:04}", self.served);
            self.open = matches!(turn, Turn::Bash(_)).then(|| id.clone());
            (turn, id)
        } else {
            (Turn::Text("an aside".to_owned()), String::new())
        };
        let model = body["model"].as_str().unwrap_or("claude");
        if streamed { wire::stream(&turn, &id, model) } else { wire::whole(&turn, &id, model) }
    }

    /// The last message has to bring the result of the call before.
    fn take_result(&mut self, body: &Value) {
        let Some(id) = self.open.take() else { return };
        let last = body["messages"].as_array().and_then(|messages| messages.last());
        let blocks = last.and_then(|last| last["content"].as_array()).into_iter().flatten();
        match blocks.into_iter().find(|block| block["type"] == "tool_result" && block["tool_use_id"] == id.as_str()) {
            Some(block) => self
                .heard
                .results
                .push(ToolResult { text: wire::text_of(&block["content"]), is_error: block["is_error"] == true }),
            None => self.heard.errors.push(format!("no result of {id} in {}", last.unwrap_or(&Value::Null))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use serde_json::json;

    use super::*;

    fn ask(stand_in: &StandIn, body: &Value) -> String {
        let mut stream = TcpStream::connect(stand_in.address).expect("it listens");
        let body = body.to_string();
        write!(
            stream,
            "POST /v1/messages?beta=true HTTP/1.1\r\nHost: x\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }

    fn request(messages: Value) -> Value {
        json!({ "model": "m", "stream": true, "tools": [{ "name": "Bash" }], "messages": messages })
    }

    #[test]
    fn a_script_is_served_turn_by_turn() {
        let stand_in = StandIn::start([Turn::Bash("true".to_owned()), Turn::Text("done".to_owned())]);
        let first = ask(&stand_in, &request(json!([{ "role": "user", "content": "hi" }])));
        assert!(first.contains("tool_use") && first.contains(r#"{\"command\":\"true\""#), "{first}");
        let aside = ask(&stand_in, &json!({ "model": "m", "messages": [] }));
        assert!(aside.contains("an aside"), "{aside}");
        let result = json!([{ "type": "tool_result", "tool_use_id": "toolu_0001", "content": "fine" }]);
        let second = ask(&stand_in, &request(json!([{ "role": "user", "content": result }])));
        assert!(second.contains("done") && second.contains("message_stop"), "{second}");
        stand_in.assert_played();
        assert_eq!(stand_in.heard().results, [ToolResult { text: "fine".to_owned(), is_error: false }]);
    }

    #[test]
    #[should_panic(expected = "no result of toolu_0001")]
    fn a_result_that_is_not_brought_back_is_an_error() {
        let stand_in = StandIn::start([Turn::Bash("true".to_owned()), Turn::Text("done".to_owned())]);
        ask(&stand_in, &request(json!([])));
        ask(&stand_in, &request(json!([{ "role": "user", "content": "hi" }])));
        stand_in.assert_played();
    }

    #[test]
    #[should_panic(expected = "asked beyond the script")]
    fn a_request_beyond_the_script_is_an_error() {
        let stand_in = StandIn::start([]);
        assert!(ask(&stand_in, &request(json!([]))).starts_with("HTTP/1.1 400"));
        stand_in.assert_played();
    }

    #[test]
    #[should_panic(expected = "not asked for")]
    fn a_turn_that_nobody_asked_for_is_an_error() {
        StandIn::start([Turn::Text("done".to_owned())]).assert_played();
    }
}
