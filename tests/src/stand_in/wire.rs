//! Messages in the form of the service: <https://docs.anthropic.com/en/api/messages-streaming>.

use serde_json::{Value, json};

use super::Turn;
use crate::http::Reply;

fn usage() -> Value {
    json!({ "input_tokens": 100, "output_tokens": 10 })
}

fn stop_reason(turn: &Turn) -> &'static str {
    match turn {
        Turn::Text(_) => "end_turn",
        Turn::Bash(_) => "tool_use",
    }
}

fn input(command: &str) -> Value {
    json!({ "command": command, "description": "Runs what the script says" })
}

fn envelope(content: &Value, stop: Option<&str>, model: &str) -> Value {
    json!({
        "id": "msg_stand_in", "type": "message", "role": "assistant", "model": model, "content": content,
        "stop_reason": stop, "stop_sequence": null, "usage": usage(),
    })
}

/// The turn as one document.
pub(super) fn whole(turn: &Turn, id: &str, model: &str) -> Reply {
    let content = match turn {
        Turn::Text(text) => json!([{ "type": "text", "text": text }]),
        Turn::Bash(command) => json!([{ "type": "tool_use", "id": id, "name": "Bash", "input": input(command) }]),
    };
    Reply::json(200, &envelope(&content, Some(stop_reason(turn)), model))
}

/// The turn as a stream of events.
pub(super) fn stream(turn: &Turn, id: &str, model: &str) -> Reply {
    let (block, delta) = match turn {
        Turn::Text(text) => (json!({ "type": "text", "text": "" }), json!({ "type": "text_delta", "text": text })),
        Turn::Bash(command) => (
            json!({ "type": "tool_use", "id": id, "name": "Bash", "input": {} }),
            json!({ "type": "input_json_delta", "partial_json": input(command).to_string() }),
        ),
    };
    Reply::events(&[
        json!({ "type": "message_start", "message": envelope(&json!([]), None, model) }),
        json!({ "type": "content_block_start", "index": 0, "content_block": block }),
        json!({ "type": "content_block_delta", "index": 0, "delta": delta }),
        json!({ "type": "content_block_stop", "index": 0 }),
        json!({
            "type": "message_delta", "usage": usage(),
            "delta": { "stop_reason": stop_reason(turn), "stop_sequence": null },
        }),
        json!({ "type": "message_stop" }),
    ])
}

/// The text of a content, which is a string or a list of blocks.
pub(super) fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => blocks.iter().filter_map(|block| block["text"].as_str()).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => String::new(),
    }
}
