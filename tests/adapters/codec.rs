//! Codecs of tokio-util.

use crate::{our_client, our_listener, with_server};

#[path = "../../examples/codec.rs"]
mod example;

#[tokio::test]
async fn the_example() {
    let (listener, address) = our_listener().await;
    let long = "long".repeat(100_000);
    let lines = ["", "line", &long].map(String::from);
    let answers = with_server(example::serve(listener), async {
        example::reversed(our_client(address).await, lines.into_iter()).await.unwrap()
    });
    assert_eq!(answers.await, ["".into(), "enil".into(), "gnol".repeat(100_000)]);
}
