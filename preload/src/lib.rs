//! SMC-D for unmodified programs: `LD_PRELOAD=libsmcd_preload.so redis-server`, or shorter `smcdctl run redis-server`.
