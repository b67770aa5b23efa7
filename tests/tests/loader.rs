//! The loader's books, against servers whose behaviour is known.

mod books {
    use axum::extract::State;
    use axum::http::{HeaderMap, StatusCode};
    use axum::response::{IntoResponse, Response};
    use axum::routing::post;
    use axum::{Json, Router};
    use devenv_tests::loader::Loader;
    use serde_json::json;
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    const SOON: Duration = Duration::from_secs(10);

    /// What the server has stored, by key, and how often it was asked.
    #[derive(Default)]
    struct Kept {
        ids: BTreeMap<String, u64>,
        asked: u64,
    }

    type Shared = Arc<Mutex<Kept>>;

    /// Serves on a free port; `answer` is given each request's number and id.
    async fn serve(answer: fn(u64, u64) -> Response) -> (String, Shared) {
        let kept = Shared::default();
        let app = Router::new()
            .route(
                "/api",
                post(
                    move |State(kept): State<Shared>, headers: HeaderMap| async move {
                        let key = headers["idempotency-key"].to_str().unwrap().to_owned();
                        let mut kept = kept.lock().unwrap();
                        kept.asked += 1;
                        let next = kept.ids.len() as u64 + 1;
                        let id = *kept.ids.entry(key).or_insert(next);
                        answer(kept.asked, id)
                    },
                ),
            )
            .with_state(kept.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (base, kept)
    }

    fn created(id: u64) -> Response {
        (
            StatusCode::CREATED,
            Json(json!({ "ids": [id], "api": "api1" })),
        )
            .into_response()
    }

    #[tokio::test]
    async fn every_acknowledgement_is_kept_once_with_its_id() {
        let (base, kept) = serve(|_, id| created(id)).await;
        let mut loader = Loader::start(&base, "t", 4);
        loader.wait_for(50, SOON).await;
        let ledger = loader.stop(SOON).await;
        let kept = kept.lock().unwrap();
        assert!(ledger.acknowledged.len() >= 50);
        assert_eq!(ledger.acknowledged.len(), kept.ids.len());
        for (key, (ids, api)) in &ledger.acknowledged {
            assert_eq!(
                (ids.as_slice(), api.as_str()),
                (&[kept.ids[key]][..], "api1")
            );
        }
        assert!(ledger.unanswered.is_empty());
        assert_eq!(ledger.lost, 0);
    }

    #[tokio::test]
    async fn a_503_is_tried_again_with_the_same_key_and_its_retry_after_is_watched() {
        let (base, kept) = serve(|asked, id| match asked % 4 {
            0 => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1")]).into_response(),
            1 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            _ => created(id),
        })
        .await;
        let mut loader = Loader::start(&base, "t", 2);
        loader.wait_for(20, SOON).await;
        let ledger = loader.stop(SOON).await;
        assert_eq!(ledger.acknowledged.len(), kept.lock().unwrap().ids.len());
        let refused = ledger.statuses[&503];
        assert!(ledger.without_retry_after > 0 && ledger.without_retry_after < refused);
        assert!(ledger.unexpected.is_empty());
    }

    #[tokio::test]
    async fn an_unexpected_answer_is_kept_as_evidence() {
        let (base, _) = serve(|asked, id| {
            if asked == 3 {
                (StatusCode::NOT_FOUND, "nobody here").into_response()
            } else {
                created(id)
            }
        })
        .await;
        let mut loader = Loader::start(&base, "t", 1);
        loader.wait_for(5, SOON).await;
        let ledger = loader.stop(SOON).await;
        assert_eq!(ledger.unexpected[&404], "nobody here");
    }

    #[tokio::test]
    async fn a_server_that_is_away_and_comes_back_costs_nothing_but_time() {
        // Nobody listens on a port that was free a moment ago.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let mut loader = Loader::start(&format!("http://{address}"), "t", 2);
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!(loader.acknowledged(), 0);
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let app = Router::new().route("/api", post(async || created(1)));
        tokio::spawn(async move { axum::serve(listener, app).await });
        loader.wait_for(4, SOON).await;
        let ledger = loader.stop(SOON).await;
        assert!(ledger.lost > 0);
        assert!(ledger.unanswered.is_empty());
    }
}
