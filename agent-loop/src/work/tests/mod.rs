//! A whole life against a forge that remembers, then against one in trouble, with people and another host in it.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test picks what it is about")]

mod property;
mod shadow;
mod stories;
