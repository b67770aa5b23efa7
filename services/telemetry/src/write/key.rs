//! `Idempotency-Key`: its form, and the turn-taking of duplicates inside one
//! process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

/// 1 to 64 printable ASCII characters; the sender's name for one request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(String);

/// The header holds something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 1 to 64 printable ASCII characters")]
pub struct BadKey;

impl Key {
    /// Reads the header's value.
    ///
    /// # Errors
    /// [`BadKey`].
    pub fn parse(value: &[u8]) -> Result<Self, BadKey> {
        let printable = value.iter().all(|b| (0x20..=0x7e).contains(b));
        // Blanks around it are no part of a header's value, and the column
        // would not tell them apart.
        match std::str::from_utf8(value.trim_ascii()) {
            Ok(text) if printable && (1..=64).contains(&text.len()) => Ok(Self(text.to_owned())),
            _ => Err(BadKey),
        }
    }

    /// The key as it came.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

type Turn = Arc<tokio::sync::Mutex<()>>;

/// Lets requests with the same key take turns, so that fifty duplicates hold
/// one connection to the database and not fifty.
#[derive(Debug, Default)]
pub struct KeyLocks {
    turns: Arc<Mutex<HashMap<Key, Turn>>>,
}

/// One request's turn; dropping it lets the next one go.
#[derive(Debug)]
pub struct KeyTurn {
    turns: Arc<Mutex<HashMap<Key, Turn>>>,
    key: Key,
    guard: Option<OwnedMutexGuard<()>>,
}

impl KeyLocks {
    /// Waits until nobody else in this process works on `key`.
    pub async fn lock(&self, key: &Key) -> KeyTurn {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.entry(key.clone()).or_default().clone()
        };
        // Made first, so that a cancelled wait tidies up as well.
        let mut own = KeyTurn {
            turns: self.turns.clone(),
            key: key.clone(),
            guard: None,
        };
        own.guard = Some(turn.lock_owned().await);
        own
    }
}

impl Drop for KeyTurn {
    fn drop(&mut self) {
        self.guard.take();
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's own reference is the last one: nobody works or waits.
        if turns
            .get(&self.key)
            .is_some_and(|turn| Arc::strong_count(turn) == 1)
        {
            turns.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(b"a", true)]
    #[case(b"with blank", true)]
    #[case(b"0b1e6c9c-1d2f-4f7e-9a52-0d4f8f7d6a10", true)]
    #[case(&[b'x'; 64], true)]
    #[case(&[b'x'; 65], false)]
    #[case(b"", false)]
    #[case(b"   ", false)]
    #[case(b"tab\tbed", false)]
    #[case("ñ".as_bytes(), false)]
    fn keys_are_printable_and_short(#[case] value: &[u8], #[case] good: bool) {
        assert_eq!(Key::parse(value).is_ok(), good);
    }

    #[tokio::test]
    async fn the_same_key_takes_turns_and_nothing_stays_behind() {
        let locks = KeyLocks::default();
        let key = Key::parse(b"k").unwrap();
        let first = locks.lock(&key).await;
        let mut second = Box::pin(locks.lock(&key));
        assert!(futures_poll(&mut second).await.is_none());
        let other = locks.lock(&Key::parse(b"other").unwrap()).await;
        drop(first);
        let second = second.await;
        // A wait that is given up leaves nothing either.
        let mut third = Box::pin(locks.lock(&key));
        assert!(futures_poll(&mut third).await.is_none());
        drop(third);
        drop((second, other));
        assert!(locks.turns.lock().unwrap().is_empty());
    }

    /// Polls once.
    async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        std::future::poll_fn(|cx| {
            std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(cx) {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
