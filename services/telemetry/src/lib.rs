//! What the telemetry services share.
