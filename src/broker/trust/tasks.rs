//! Tasks that ask somebody something, with what each is about: that is known also of one that panicked or was cancelled,
//! so that nothing counts as under way for ever.

use std::collections::HashMap;
use std::fmt::Display;
use std::future::Future;

use tokio::task::Id;
use tokio::task::JoinSet;

/// See the module. There is at most one for each thing that is asked.
#[derive(Debug)]
pub(super) struct Tasks<K, T, E> {
    running: JoinSet<Result<T, E>>,
    about: HashMap<Id, K>,
}

impl<K, T, E> Default for Tasks<K, T, E> {
    fn default() -> Self {
        Self { running: JoinSet::new(), about: HashMap::new() }
    }
}

impl<K, T: Send + 'static, E: Display + Send + 'static> Tasks<K, T, E> {
    /// Starts one.
    pub(super) fn spawn(&mut self, about: K, work: impl Future<Output = Result<T, E>> + Send + 'static) {
        let id = self.running.spawn(work).id();
        self.about.insert(id, about);
    }

    /// The next one that ended, and what came of it; `None` while there is none.
    pub(super) async fn next(&mut self) -> Option<(K, Result<T, String>)> {
        let (id, result) = match self.running.join_next_with_id().await? {
            Ok((id, result)) => (id, result.map_err(|error| error.to_string())),
            Err(error) => (error.id(), Err(format!("nobody asked to the end: {error}"))),
        };
        Some((self.about.remove(&id)?, result))
    }
}

#[cfg(test)]
mod tests {
    use std::future;

    use super::*;

    #[tokio::test]
    async fn what_a_task_was_about_is_known_also_if_it_panics_or_is_cancelled() {
        let mut tasks: Tasks<&str, u8, String> = Tasks::default();
        tasks.spawn("good", future::ready(Ok(7)));
        assert_eq!(tasks.next().await, Some(("good", Ok(7))));
        tasks.spawn("bad", future::ready(Err("no".to_owned())));
        assert_eq!(tasks.next().await, Some(("bad", Err("no".to_owned()))));
        tasks.spawn("panics", async { panic!("on purpose") });
        let (about, result) = tasks.next().await.unwrap();
        assert!(about == "panics" && result.unwrap_err().starts_with("nobody asked to the end"));
        tasks.spawn("hangs", future::pending());
        tasks.running.abort_all();
        assert_eq!(tasks.next().await.unwrap().0, "hangs");
        assert_eq!((tasks.next().await, tasks.about.len()), (None, 0));
    }
}
