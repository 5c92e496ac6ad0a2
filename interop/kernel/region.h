/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * An attached region, and what this endpoint knows of it.
 *
 * The others may write anything anywhere in the region. So all that matters is
 * kept here, in memory of our own; a word of the region is loaded once, checked,
 * and used from the copy.
 */
#ifndef DIBS_REGION_H
#define DIBS_REGION_H

#include <linux/atomic.h>
#include <linux/dibs.h>
#include <linux/io.h>
#include <linux/pci.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

#include "layout.h"

/* Registers of ivshmem, in BAR 0. */
#define IVSHMEM_POSITION	8
#define IVSHMEM_DOORBELL	12
#define IVSHMEM_BELL(slot)	((slot) << 16)	/* vector 0 of it */

#define REGION_MOVE_LOCKS	64

/* The memory is made of folios of this order. */
#define REGION_FOLIO_ORDER	9
#define REGION_FOLIO_PAGES	BIT(REGION_FOLIO_ORDER)

/* Another endpoint, or this one. */
struct region_peer {
	bool present;
	bool belled;
	/* A client has asked for its GID and got this slot. */
	bool known;
	/* The one before it has ended, and the clients are told of that then. */
	bool gone;
	unsigned long gone_until;
	uuid_t gone_gid;
	u32 connection;
	u32 incarnation;
	uuid_t gid;
	/* The last of its words that were looked at. */
	u32 rung_seen;
	u32 taken;
	/* When another event is taken from it, in jiffies. */
	unsigned long next_event;
	/* Our words for it. */
	u32 rung;
	u32 event;
	/* An event that waits until the last one is taken. */
	bool waiting;
	u32 waiting_code;
	u64 waiting_data;
};

enum region_dmb_state {
	DMB_FREE,
	/* Its memory is being prepared. */
	DMB_RESERVED,
	DMB_REGISTERED,
	/* Unregistered, but its user may still write into its memory. */
	DMB_PARKED,
};

/* A DMB of this endpoint. */
struct region_dmb {
	enum region_dmb_state state;
	u64 token;
	unsigned long first_page;
	unsigned long pages;
	u32 user;
	u32 user_incarnation;
	u32 moves_seen;
};

struct region {
	struct pci_dev *pdev;
	struct dibs_dev *dibs;
	void __iomem *registers;
	void *base;
	phys_addr_t base_phys;

	/* From the header, which is read once. */
	u16 fabric;
	u32 slots;
	u32 entries;
	u64 area;
	u64 slices;
	u64 slice;

	u32 slot;
	u32 incarnation;
	struct delayed_work look;

	/*
	 * One of these is held while data is moved into a DMB of another: which
	 * one, the token says.
	 */
	spinlock_t moving[REGION_MOVE_LOCKS];

	/*
	 * SMC adds VLANs while it holds a lock that it also takes below
	 * dibs->lock, so they have a lock of their own.
	 */
	spinlock_t vlan_lock;
	u16 vlans[REGION_VLANS];

	/* All that follows: under dibs->lock. */
	struct region_peer peers[REGION_MAX_SLOTS];
	struct region_dmb *dmbs;
	u32 next_entry;
	u32 parked;
	unsigned long *pages;
};

static inline struct region_control *region_control(struct region *region, u32 slot)
{
	return region->base + REGION_AREAS + slot * region->area;
}

static inline struct region_entry *region_entry(struct region *region, u32 slot, u32 entry)
{
	return (void *)region_control(region, slot) + REGION_PAGE +
	       entry * sizeof(struct region_entry);
}

/* What the endpoint of slot @from says to that of slot @to. */
static inline struct region_words *region_words(struct region *region, u32 from, u32 to)
{
	return &region_control(region, from)->to[to];
}

/* Where the memory of a slot's DMBs begins, in bytes of the region. */
static inline u64 region_slice(struct region *region, u32 slot)
{
	return region->slices + slot * region->slice;
}

static inline u32 region_load32(const __le32 *word)
{
	return le32_to_cpu(READ_ONCE(*word));
}

static inline u64 region_load64(const __le64 *word)
{
	return le64_to_cpu(READ_ONCE(*word));
}

static inline void region_store32(__le32 *word, u32 value)
{
	WRITE_ONCE(*word, cpu_to_le32(value));
}

static inline void region_store64(__le64 *word, u64 value)
{
	WRITE_ONCE(*word, cpu_to_le64(value));
}

/*
 * Puts @new where @old stands; whether that was still there. Others of the
 * region are not of this machine, so this is atomic also on one with a single
 * processor.
 */
static inline bool region_swap32(__le32 *word, u32 old, u32 new)
{
	u32 *raw = (__force u32 *)word;
	u32 before = (__force u32)cpu_to_le32(old), after = (__force u32)cpu_to_le32(new);

#ifdef arch_sync_cmpxchg
	return arch_sync_cmpxchg(raw, before, after) == before;
#else
	return cmpxchg(raw, before, after) == before;
#endif
}

/* region.c */
int region_read_header(struct region *region, u64 len);
u16 region_get_fabric_id(struct dibs_dev *dibs);
void region_join(struct region *region);
void region_leave(struct region *region);
int region_add_vlan_id(struct dibs_dev *dibs, u64 vlan);
int region_del_vlan_id(struct dibs_dev *dibs, u64 vlan);
bool region_has_vlan(struct region *region, u32 slot, u32 vlan);

/* peers.c */
void region_look(struct region *region);
void region_ring(struct region *region, u32 slot);
int region_find_peer(struct region *region, const uuid_t *gid);
int region_query_remote_gid(struct dibs_dev *dibs, const uuid_t *gid, u32 vlan_valid, u32 vlan);
int region_signal_event(struct dibs_dev *dibs, const uuid_t *gid, u32 trigger_irq, u32 code,
			u64 data);

/* dmbs.c */
int region_max_dmbs(void);
int region_register_dmb(struct dibs_dev *dibs, struct dibs_dmb *dmb, struct dibs_client *client);
int region_unregister_dmb(struct dibs_dev *dibs, struct dibs_dmb *dmb);
int region_move_data(struct dibs_dev *dibs, u64 token, unsigned int idx, bool signal,
		     unsigned int offset, void *data, unsigned int size);
void region_look_at_dmbs(struct region *region, u32 user);
void region_free_parked(struct region *region);
void region_take_over(struct region *region);

#endif
