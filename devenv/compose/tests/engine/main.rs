//! On a real Docker Engine, and beside the real Compose 2.
//!
//! Without an engine the tests are skipped, with a line that says so; under `CI=true`
//! they fail. Nothing is pulled: the image is made of the machine's static busybox.

mod compose2;
mod failures;
mod lifecycle;
mod support;
