//! One client's Session State (MQTT 5.0 section 4.1): pure, driven by `broker`.
