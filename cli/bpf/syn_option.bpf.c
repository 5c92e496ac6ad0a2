// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The SMC option of TCP for sockets that ask for it.
//
// A socket asks by setsockopt(SOL_SMC, SMC_OPTION, int), before it connects or listens. Its SYN, or the SYN-ACK to a SYN
// that has the option, then carries the option. getsockopt of the same name tells what was asked for, and whether the
// peer has sent the option too (in answer to ours, or before ours in answer to it). Nothing changes for other sockets.
//
// `smcdctl syn-option` loads these three programs. None of the helpers is reserved for programs under the GPL.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define SOL_SMC 286
/* Linux' own SMC sockets have an option 1 at this level. */
#define SMC_OPTION 100
#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define SOL_TCP 6
#define TCP_SAVE_SYN 27
#define TCPHDR_SYN 0x02
#define TCPHDR_ACK 0x10
#define PAGE 4096

/* What getsockopt tells. */
#define ASKED 1u
#define PEER_SENT 2u
#define TOLD (ASKED | PEER_SENT)
/* The connection, or the listener that it came from, was told to send the option. */
#define ARMED 4u
/* It was us who asked to be called for its segments; others of the cgroup may have asked before. */
#define OURS_TO_STOP 8u

struct state {
	__u32 flags;
};

/* Cloned: a connection that is accepted begins with what its listener has. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct state);
} states SEC(".maps");

static const __u8 option[8] = {254, 6, 0xe2, 0xd4, 0xc3, 0xd9};
#define OPTION_LEN 6

static __always_inline struct state *state_of(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;

	return sk ? bpf_sk_storage_get(&states, sk, 0, 0) : 0;
}

/* Looks in the segment at hand, or with BPF_LOAD_HDR_OPT_TCP_SYN in the SYN that began the connection. Kernels take
 * longer options for SMC's too; this finds those of the length that all send. */
static __always_inline int has_option(struct bpf_sock_ops *ops, __u64 where)
{
	__u8 found[8] = {254, 6, 0xe2, 0xd4, 0xc3, 0xd9};

	return bpf_load_hdr_opt(ops, found, OPTION_LEN, where) == OPTION_LEN;
}

/* The handshake is over, or there will be none: segments with data cost nothing. */
static __always_inline void stop(struct bpf_sock_ops *ops, struct state *state)
{
	if (state->flags & OURS_TO_STOP)
		bpf_sock_ops_cb_flags_set(ops,
			ops->bpf_sock_ops_cb_flags & ~BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
	state->flags &= ~OURS_TO_STOP;
}

/* A socket is about to connect or listen. It may have done so before. */
static __always_inline void arm(struct bpf_sock_ops *ops, struct state *state)
{
	int wanted = BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG;

	state->flags &= ~(PEER_SENT | ARMED);
	if (!(state->flags & ASKED)) {
		stop(ops, state);
		return;
	}
	if (!(ops->bpf_sock_ops_cb_flags & wanted)) {
		bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | wanted);
		state->flags |= OURS_TO_STOP;
	}
	state->flags |= ARMED;
}

/* A SYN of a socket that asked, or the SYN-ACK of a listener that asked, to a SYN with the option. The callback may be
 * there on behalf of another program, so it is looked at whose SYN it is. A SYN-ACK has no socket that could be looked
 * at: there such a program makes a listener echo the option that did not ask. */
static __always_inline int sends_option(struct bpf_sock_ops *ops)
{
	struct state *state;

	if (!(ops->skb_tcp_flags & TCPHDR_SYN))
		return 0;
	if (ops->skb_tcp_flags & TCPHDR_ACK)
		return has_option(ops, BPF_LOAD_HDR_OPT_TCP_SYN);
	state = state_of(ops);
	return state && (state->flags & ARMED);
}

SEC("sockops")
int smcd_sockops(struct bpf_sock_ops *ops)
{
	struct state *state;
	int one = 1;

	switch (ops->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		state = state_of(ops);
		if (state)
			arm(ops, state);
		break;
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		state = state_of(ops);
		if (!state)
			break;
		arm(ops, state);
		/* What the SYN had is looked up when the connection is established. */
		if (state->flags & ARMED)
			bpf_setsockopt(ops, SOL_TCP, TCP_SAVE_SYN, &one, sizeof(one));
		break;
	case BPF_SOCK_OPS_HDR_OPT_LEN_CB:
		/* Not with a SYN cookie: nothing would remember what the SYN had. */
		if (ops->args[0] != BPF_WRITE_HDR_TCP_SYNACK_COOKIE && sends_option(ops))
			bpf_reserve_hdr_opt(ops, OPTION_LEN, 0);
		break;
	case BPF_SOCK_OPS_WRITE_HDR_OPT_CB:
		if (ops->args[0] != BPF_WRITE_HDR_TCP_SYNACK_COOKIE && sends_option(ops))
			bpf_store_hdr_opt(ops, option, OPTION_LEN, 0);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		state = state_of(ops);
		if (!state)
			break;
		if ((state->flags & ARMED) && has_option(ops, 0))
			state->flags |= PEER_SENT;
		stop(ops, state);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		state = state_of(ops);
		if (!state)
			break;
		if ((state->flags & ARMED) && has_option(ops, BPF_LOAD_HDR_OPT_TCP_SYN))
			state->flags |= PEER_SENT;
		stop(ops, state);
		break;
	}
	return 1;
}

static __always_inline int is_ours(struct bpf_sockopt *call)
{
	struct bpf_sock *sk = call->sk;

	return call->level == SOL_SMC && call->optname == SMC_OPTION && sk && sk->protocol == IPPROTO_TCP &&
	       (sk->family == AF_INET || sk->family == AF_INET6);
}

/* Not our call: the kernel goes on with it. What is longer than a page was not copied, which has to be acknowledged. */
static __always_inline int leave(struct bpf_sockopt *call)
{
	if (call->optlen > PAGE)
		call->optlen = 0;
	return 1;
}

SEC("cgroup/setsockopt")
int smcd_setsockopt(struct bpf_sockopt *call)
{
	struct state *state;
	__u32 *value = call->optval;

	if (!is_ours(call))
		return leave(call);
	if ((void *)(value + 1) > call->optval_end)
		return 0;
	state = bpf_sk_storage_get(&states, call->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!state)
		return 0;
	if (*value)
		state->flags |= ASKED;
	else
		state->flags &= ~ASKED;
	/* Done: the kernel, which knows no such option, is not asked. */
	call->optlen = -1;
	return 1;
}

SEC("cgroup/getsockopt")
int smcd_getsockopt(struct bpf_sockopt *call)
{
	struct state *state;
	__u32 *value = call->optval;

	if (!is_ours(call))
		return leave(call);
	if ((void *)(value + 1) > call->optval_end)
		return 0;
	state = bpf_sk_storage_get(&states, call->sk, 0, 0);
	*value = state ? state->flags & TOLD : 0;
	call->optlen = sizeof(*value);
	/* Two stores that the compiler must not make one of: the verifier refuses that. */
	barrier();
	call->retval = 0;
	return 1;
}

char licence[] SEC("license") = "MIT";
