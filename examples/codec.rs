//! Lines by a codec of tokio-util: a server that answers each line with the same line backwards.
//!
//! Type in one terminal
//!
//! ```text
//! cargo run --example codec -- server
//! ```
//!
//! and in another
//!
//! ```text
//! cargo run --example codec -- client one two three
//! ```

use std::{env, error::Error};

use futures_util::{SinkExt, StreamExt};
use smcd::{SmcListener, SmcStream};
use tokio_util::codec::{Framed, LinesCodec};

const ADDRESS: &str = "127.0.0.1:6143";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    match env::args().nth(1).as_deref() {
        Some("server") => serve(SmcListener::bind(ADDRESS).await?).await,
        Some("client") => {
            let stream = SmcStream::connect(ADDRESS).await?;
            for line in reversed(stream, env::args().skip(2)).await? {
                println!("{line}");
            }
            Ok(())
        }
        _ => Err("usage: codec server | client LINE...".into()),
    }
}

/// Serves the clients of a listener.
pub async fn serve(listener: SmcListener) -> Result<(), Box<dyn Error>> {
    loop {
        let (stream, peer) = listener.accept().await?;
        println!("{peer}: connected");
        tokio::spawn(async move {
            let (to_client, lines) = Framed::new(stream, LinesCodec::new()).split();
            let backwards = lines.map(|line| line.map(|line| line.chars().rev().collect::<String>()));
            if let Err(error) = backwards.forward(to_client).await {
                println!("{peer}: {error}");
            }
        });
    }
}

/// What the server makes of these lines.
pub async fn reversed(
    stream: SmcStream,
    lines: impl Iterator<Item = String>,
) -> Result<Vec<String>, Box<dyn Error>> {
    let mut framed = Framed::new(stream, LinesCodec::new());
    let mut answers = Vec::new();
    for line in lines {
        framed.send(line).await?;
        answers.push(framed.next().await.ok_or("the server has closed the connection")??);
    }
    Ok(answers)
}
