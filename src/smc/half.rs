//! What the borrowed and the owned half of each direction have in common. Each hands on to the stream that it is a
//! half of, which its `as_ref` gives.

/// Methods of both directions.
macro_rules! half {
    () => {
        /// Waits for any of the requested readiness states, as [`SmcStream::ready`] does.
        ///
        /// # Errors
        /// If the runtime has gone, or the interest is neither reading nor writing.
        ///
        /// # Cancel safety
        /// Nothing is lost; readiness stays.
        pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
            self.as_ref().ready(interest).await
        }

        /// The remote address of the TCP connection.
        ///
        /// # Errors
        /// The system's.
        pub fn peer_addr(&self) -> io::Result<SocketAddr> {
            self.as_ref().peer_addr()
        }

        /// The local address of the TCP connection.
        ///
        /// # Errors
        /// The system's.
        pub fn local_addr(&self) -> io::Result<SocketAddr> {
            self.as_ref().local_addr()
        }
    };
}

/// Methods of a half that reads.
macro_rules! read_half {
    () => {
        /// Polls for bytes to read without taking them away; says how many were copied to `buf`. Only the waker of the
        /// last call is woken.
        ///
        /// # Errors
        /// As for reading.
        pub fn poll_peek(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
            self.as_ref().poll_peek(cx, buf)
        }

        /// Reads into `buf` without taking the bytes away.
        ///
        /// # Errors
        /// As for reading.
        ///
        /// # Cancel safety
        /// Nothing is lost.
        pub async fn peek(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.as_ref().peek(buf).await
        }

        /// Waits until the stream can be read from (the end included).
        ///
        /// # Errors
        /// If the runtime has gone.
        ///
        /// # Cancel safety
        /// Nothing is lost; readiness stays.
        pub async fn readable(&self) -> io::Result<()> {
            self.as_ref().readable().await
        }

        /// Reads what is there into `buf`. Zero means the end (or an empty `buf`).
        ///
        /// # Errors
        /// `WouldBlock` if there is nothing yet; otherwise as for reading.
        pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
            self.as_ref().try_read(buf)
        }

        /// Reads what is there into the buffers, one after the other. Zero means the end (or empty buffers).
        ///
        /// # Errors
        /// `WouldBlock` if there is nothing yet; otherwise as for reading.
        pub fn try_read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
            self.as_ref().try_read_vectored(bufs)
        }

        /// Reads what is there into `buf`, advancing it. Zero means the end (or a full `buf`).
        ///
        /// # Errors
        /// `WouldBlock` if there is nothing yet; otherwise as for reading.
        pub fn try_read_buf<B: BufMut>(&self, buf: &mut B) -> io::Result<usize> {
            self.as_ref().try_read_buf(buf)
        }
    };
}

/// Methods of a half that writes.
macro_rules! write_half {
    () => {
        /// Waits until the stream can be written to, or writing would fail.
        ///
        /// # Errors
        /// If the runtime has gone.
        ///
        /// # Cancel safety
        /// Nothing is lost; readiness stays.
        pub async fn writable(&self) -> io::Result<()> {
            self.as_ref().writable().await
        }

        /// Writes as much of `buf` as there is room for.
        ///
        /// # Errors
        /// `WouldBlock` if there is no room; otherwise as for writing.
        pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
            self.as_ref().try_write(buf)
        }

        /// Writes as much of the buffers as there is room for.
        ///
        /// # Errors
        /// `WouldBlock` if there is no room; otherwise as for writing.
        pub fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
            self.as_ref().try_write_vectored(bufs)
        }
    };
}

/// Methods of `AsyncRead`.
macro_rules! poll_read {
    () => {
        fn poll_read(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.as_ref().get_ref().as_ref().poll_read_shared(cx, buf)
        }
    };
}

/// Methods of `AsyncWrite`, but for `poll_shutdown`.
macro_rules! poll_write {
    () => {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(buf)])
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.as_ref().get_ref().as_ref().poll_write_shared(cx, bufs)
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    };
}

pub(super) use {half, poll_read, poll_write, read_half, write_half};
