/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The layout of a region, version 1, as src/dibs/region/LAYOUT.md has it.
 */
#ifndef DIBS_REGION_LAYOUT_H
#define DIBS_REGION_LAYOUT_H

#include <linux/build_bug.h>
#include <linux/stddef.h>
#include <linux/types.h>
#include <linux/uuid.h>

#define REGION_MAGIC		"smcdreg1"
#define REGION_VERSION		1
#define REGION_PAGE		4096
#define REGION_FABRIC_MIN	0xFF00
#define REGION_FABRIC_MAX	0xFFFE
#define REGION_MAX_SLOTS	64
#define REGION_MIN_ENTRIES	16
#define REGION_MAX_ENTRIES	1024
#define REGION_VLANS		64

/* How the end of an endpoint is known: the server says so. */
#define REGION_LIVENESS_SERVER	1

struct region_header {
	char magic[8];
	__le32 version;
	__le32 fabric;
	__le64 bytes;
	__le32 slots;
	__le32 entries;
	__le32 liveness;
};

/* The words of the server, one for each slot. */
#define REGION_CONNECTIONS	(REGION_PAGE + 64)
#define REGION_CONNECTED	1

/* Where the areas of the slots begin. */
#define REGION_AREAS		(2 * REGION_PAGE)

/* What an endpoint says to one other. */
struct region_words {
	__le32 rung;
	__le32 event;
	__le64 data;
	__le32 code;
	__le32 taken;
	u8 reserved[8];
};

/* The upper half of a state or of a connection tells one endpoint from the next. */
#define REGION_PRESENT		1
#define REGION_FLAG_SIGNALLED	1
#define REGION_FLAG_BELLED	2

struct region_control {
	__le64 state;
	uuid_t gid;
	__le32 flags;
	__le32 reserved1;
	__le64 heartbeat;
	u8 reserved2[88];
	__le16 vlans[REGION_VLANS];
	u8 reserved3[1792];
	struct region_words to[REGION_MAX_SLOTS];
};

struct region_entry {
	__le64 token;
	__le64 start;
	__le64 bytes;
	uuid_t user_gid;
	__le32 user;
	__le32 vlan;
	__le32 user_incarnation;
	u8 reserved1[12];
	__le32 armed_data;
	__le32 armed_space;
	u8 reserved2[56];
	__le32 moves;
	__le32 held;
	u8 reserved3[120];
};

static_assert(sizeof(struct region_words) == 32);
static_assert(offsetof(struct region_words, taken) == 20);
static_assert(offsetof(struct region_control, heartbeat) == 32);
static_assert(offsetof(struct region_control, vlans) == 128);
static_assert(offsetof(struct region_control, to) == 2048);
static_assert(sizeof(struct region_control) == REGION_PAGE);
static_assert(offsetof(struct region_entry, user) == 40);
static_assert(offsetof(struct region_entry, armed_data) == 64);
static_assert(offsetof(struct region_entry, moves) == 128);
static_assert(sizeof(struct region_entry) == 256);

/* A token says where its entry lies. */
static inline u64 region_token(u64 random, u32 slot, u32 entry)
{
	return random << 16 | slot << 10 | entry;
}

static inline u32 region_token_slot(u64 token)
{
	return token >> 10 & (REGION_MAX_SLOTS - 1);
}

static inline u32 region_token_entry(u64 token)
{
	return token & (REGION_MAX_ENTRIES - 1);
}

#endif
