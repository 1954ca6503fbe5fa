//! Every metric, declared once: name, help, unit, labels.
