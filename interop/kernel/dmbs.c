// SPDX-License-Identifier: GPL-2.0-only
/*
 * DMBs: those of this endpoint, and moving data into those of others.
 */
#include <linux/bitmap.h>
#include <linux/random.h>
#include <linux/unaligned.h>

#include "region.h"

/* How often *held* is tried to be written. Who has the entry before or after us changes it a few times. */
#define REGION_HOLD_TRIES	8

/* A move up to this size is written in words, so that no cursor is ever seen half written. */
#define REGION_WORDS_MAX	64

static inline void *region_dmb_memory(struct region *region, const struct region_dmb *dmb)
{
	return region->base + region_slice(region, region->slot) + dmb->first_page * REGION_PAGE;
}

static inline struct region_entry *region_own_entry(struct region *region,
						    const struct region_dmb *dmb)
{
	return region_entry(region, region->slot, dmb - region->dmbs);
}

int region_max_dmbs(void)
{
	return REGION_MAX_ENTRIES;
}

/*
 * The entry of a new DMB: the one asked for, or one that was not in use lately.
 * So somebody that is late with an old token most likely finds nothing at all.
 */
static struct region_dmb *region_take_entry(struct region *region, u32 wanted)
{
	u32 i, entry;

	if (wanted) {
		if (wanted >= region->entries || region->dmbs[wanted].state != DMB_FREE)
			return ERR_PTR(-EINVAL);
		return &region->dmbs[wanted];
	}
	for (i = 0; i < region->entries; i++) {
		entry = (region->next_entry + i) % region->entries;
		if (region->dmbs[entry].state == DMB_FREE) {
			region->next_entry = entry + 1;
			return &region->dmbs[entry];
		}
	}
	return ERR_PTR(-ENOSPC);
}

/*
 * Free pages for a DMB. SMC takes it for one folio when it splices, so it is not
 * to reach from one folio into the next, unless it is longer than one.
 */
static unsigned long region_find_pages(struct region *region, unsigned long pages)
{
	unsigned long before = div_u64(region_slice(region, region->slot), REGION_PAGE);
	unsigned long all = div_u64(region->slice, REGION_PAGE);
	unsigned long first = 0, rest;

	for (;;) {
		first = bitmap_find_next_zero_area(region->pages, all, first, pages, 0);
		rest = REGION_FOLIO_PAGES - (before + first) % REGION_FOLIO_PAGES;
		if (first >= all || pages <= rest || pages > REGION_FOLIO_PAGES)
			return first;
		first += rest;
	}
}

/* Takes entry and memory for a DMB of the user. Under dibs->lock. */
static struct region_dmb *region_reserve(struct region *region, const struct dibs_dmb *wanted)
{
	unsigned long pages = DIV_ROUND_UP_ULL((u64)wanted->dmb_len, REGION_PAGE);
	struct region_dmb *dmb;
	unsigned long first;
	int user;

	user = region_find_peer(region, &wanted->rgid);
	if (user < 0)
		return ERR_PTR(user);
	dmb = region_take_entry(region, wanted->idx);
	if (IS_ERR(dmb))
		return dmb;
	first = region_find_pages(region, pages);
	if (first >= div_u64(region->slice, REGION_PAGE))
		return ERR_PTR(-ENOMEM);
	bitmap_set(region->pages, first, pages);
	region->peers[user].known = true;
	dmb->state = DMB_RESERVED;
	dmb->first_page = first;
	dmb->pages = pages;
	dmb->user = user;
	dmb->user_incarnation = region->peers[user].incarnation;
	return dmb;
}

static void region_write_entry(struct region *region, struct region_dmb *dmb,
			       const struct dibs_dmb *wanted)
{
	struct region_entry *entry = region_own_entry(region, dmb);

	region_store64(&entry->start, region_dmb_memory(region, dmb) - region->base);
	region_store64(&entry->bytes, (u64)dmb->pages * REGION_PAGE);
	entry->user_gid = wanted->rgid;
	region_store32(&entry->user, dmb->user);
	region_store32(&entry->vlan, wanted->vlan_valid ? wanted->vlan_id : 0);
	region_store32(&entry->user_incarnation, dmb->user_incarnation);
	region_store32(&entry->armed_data, 0);
	region_store32(&entry->armed_space, 0);
	dmb->moves_seen = region_load32(&entry->moves);
}

static u64 region_new_token(struct region *region, const struct region_dmb *dmb)
{
	u64 random;

	do {
		random = get_random_u64() >> 16;
	} while (!random);
	return region_token(random, region->slot, dmb - region->dmbs);
}

int region_register_dmb(struct dibs_dev *dibs, struct dibs_dmb *wanted, struct dibs_client *client)
{
	struct region *region = dibs->drv_priv;
	struct region_dmb *dmb;
	unsigned long flags;
	void *memory;

	if (!wanted->dmb_len)
		return -EINVAL;
	/* Its user may have come just now. */
	region_look(region);
	spin_lock_irqsave(&dibs->lock, flags);
	dmb = region_reserve(region, wanted);
	spin_unlock_irqrestore(&dibs->lock, flags);
	if (IS_ERR(dmb))
		return PTR_ERR(dmb);

	memory = region_dmb_memory(region, dmb);
	memset(memory, 0, dmb->pages * REGION_PAGE);
	region_write_entry(region, dmb, wanted);
	dmb->token = region_new_token(region, dmb);
	wanted->dmb_tok = dmb->token;
	wanted->cpu_addr = memory;
	/* SMC takes 0 for none. */
	wanted->dma_addr = region->base_phys + (memory - region->base);
	wanted->idx = dmb - region->dmbs;

	spin_lock_irqsave(&dibs->lock, flags);
	dibs->dmb_clientid_arr[wanted->idx] = client->id;
	dmb->state = DMB_REGISTERED;
	/* The token is written last. */
	virt_wmb();
	region_store64(&region_own_entry(region, dmb)->token, dmb->token);
	spin_unlock_irqrestore(&dibs->lock, flags);
	return 0;
}

/* Whether its user is still writing into it. Under dibs->lock. */
static bool region_held(struct region *region, const struct region_dmb *dmb)
{
	struct region_peer *user = &region->peers[dmb->user];

	return user->present && user->incarnation == dmb->user_incarnation &&
	       region_load32(&region_own_entry(region, dmb)->held) == dmb->user_incarnation;
}

static void region_free(struct region *region, struct region_dmb *dmb)
{
	bitmap_clear(region->pages, dmb->first_page, dmb->pages);
	dmb->state = DMB_FREE;
}

int region_unregister_dmb(struct dibs_dev *dibs, struct dibs_dmb *wanted)
{
	struct region *region = dibs->drv_priv;
	struct region_dmb *dmb;
	unsigned long flags;
	int ret = -EINVAL;

	if (wanted->idx >= region->entries)
		return ret;
	dmb = &region->dmbs[wanted->idx];
	spin_lock_irqsave(&dibs->lock, flags);
	if (dmb->state != DMB_REGISTERED || dmb->token != wanted->dmb_tok)
		goto unlock;
	dibs->dmb_clientid_arr[wanted->idx] = NO_DIBS_CLIENT;
	region_store64(&region_own_entry(region, dmb)->token, 0);
	/* Either its user sees that, or we see that it holds the DMB. */
	virt_mb();
	if (region_held(region, dmb)) {
		dmb->state = DMB_PARKED;
		region->parked++;
	} else {
		region_free(region, dmb);
	}
	ret = 0;
unlock:
	spin_unlock_irqrestore(&dibs->lock, flags);
	return ret;
}

/* Under dibs->lock. */
void region_free_parked(struct region *region)
{
	u32 entry;

	for (entry = 0; region->parked && entry < region->entries; entry++) {
		struct region_dmb *dmb = &region->dmbs[entry];

		if (dmb->state == DMB_PARKED && !region_held(region, dmb)) {
			region_free(region, dmb);
			region->parked--;
		}
	}
}

/* The memory of an entry that we did not write, if it can be that of a DMB. */
static void region_take_memory(struct region *region, struct region_dmb *dmb)
{
	struct region_entry *entry = region_own_entry(region, dmb);
	u64 start = region_load64(&entry->start) - region_slice(region, region->slot);
	u64 bytes = region_load64(&entry->bytes);
	unsigned long end;

	dmb->first_page = 0;
	dmb->pages = 0;
	if ((start | bytes) % REGION_PAGE || start > region->slice || bytes > region->slice - start)
		return;
	end = div_u64(start + bytes, REGION_PAGE);
	if (find_next_bit(region->pages, end, div_u64(start, REGION_PAGE)) < end)
		return;
	dmb->first_page = div_u64(start, REGION_PAGE);
	dmb->pages = end - dmb->first_page;
	bitmap_set(region->pages, dmb->first_page, dmb->pages);
}

/*
 * Takes away the DMBs of whoever had our slot before us. It may have been
 * killed, and its users do not stop at that very moment; so what they hold is
 * not for others yet. The next look frees that of users who are not there.
 */
void region_take_over(struct region *region)
{
	unsigned long flags;
	u32 i;

	for (i = 0; i < region->entries; i++)
		region_store64(&region_entry(region, region->slot, i)->token, 0);
	/* Either a user sees that, or we see that it holds the DMB. */
	virt_mb();
	spin_lock_irqsave(&region->dibs->lock, flags);
	for (i = 0; i < region->entries; i++) {
		struct region_entry *entry = region_entry(region, region->slot, i);
		struct region_dmb *dmb = &region->dmbs[i];

		dmb->user = region_load32(&entry->user);
		dmb->user_incarnation = region_load32(&entry->user_incarnation);
		if (dmb->user >= region->slots || !dmb->user_incarnation ||
		    region_load32(&entry->held) != dmb->user_incarnation)
			continue;
		region_take_memory(region, dmb);
		dmb->state = DMB_PARKED;
		region->parked++;
	}
	spin_unlock_irqrestore(&region->dibs->lock, flags);
}

/* Tells the clients which of their DMBs this user has signalled. Under dibs->lock. */
void region_look_at_dmbs(struct region *region, u32 user)
{
	struct dibs_dev *dibs = region->dibs;
	u32 entry, moves;
	u8 client;

	for (entry = 0; entry < region->entries; entry++) {
		struct region_dmb *dmb = &region->dmbs[entry];

		if (dmb->state != DMB_REGISTERED || dmb->user != user ||
		    dmb->user_incarnation != region->peers[user].incarnation)
			continue;
		moves = region_load32(&region_own_entry(region, dmb)->moves);
		/* While it is odd another signal is on its way. */
		if (moves == dmb->moves_seen || moves & 1)
			continue;
		dmb->moves_seen = moves;
		/* The message is read after its number. */
		virt_rmb();
		client = dibs->dmb_clientid_arr[entry];
		if (client != NO_DIBS_CLIENT && dibs->subs[client])
			dibs->subs[client]->ops->handle_irq(dibs, entry, 1);
	}
}

/*
 * Where the DMB of this token is, if we are its user and it has room for the
 * bytes asked for. What its owner says about it is loaded once and checked, so
 * that it is within the owner's slice, whatever else the owner writes there.
 */
static void *region_find_memory(struct region *region, u64 token, unsigned int offset,
				unsigned int size)
{
	u32 slot = region_token_slot(token);
	struct region_entry *entry = region_entry(region, slot, region_token_entry(token));
	u64 slice = region_slice(region, slot);
	u64 start, bytes;
	uuid_t user;
	u32 vlan;

	if (region_load64(&entry->token) != token)
		return ERR_PTR(-EINVAL);
	/* It was written last. */
	virt_rmb();
	start = region_load64(&entry->start);
	bytes = region_load64(&entry->bytes);
	vlan = region_load32(&entry->vlan);
	memcpy(&user, &entry->user_gid, sizeof(user));
	barrier_data(&user);
	if (region_load32(&entry->user) != region->slot ||
	    region_load32(&entry->user_incarnation) != region->incarnation ||
	    !uuid_equal(&user, &region->dibs->gid) ||
	    (vlan && !region_has_vlan(region, region->slot, vlan)))
		return ERR_PTR(-EPERM);
	if (start % REGION_PAGE || start < slice || start - slice > region->slice ||
	    bytes > region->slice - (start - slice))
		return ERR_PTR(-EINVAL);
	if ((u64)offset + size > bytes)
		return ERR_PTR(-EINVAL);
	return region->base + start + offset;
}

static void region_write(void *to, const void *from, unsigned int size)
{
	if (size > REGION_WORDS_MAX || !IS_ALIGNED((unsigned long)to | size, sizeof(u64))) {
		memcpy(to, from, size);
		return;
	}
	for (; size; size -= sizeof(u64), to += sizeof(u64), from += sizeof(u64))
		WRITE_ONCE(*(u64 *)to, get_unaligned((const u64 *)from));
}

/* Writes between two changes of *moves*, which is odd between them. */
static void region_write_signalled(__le32 *moves, void *to, const void *from, unsigned int size)
{
	/* Odd it may be if the one before us has not come to the end of it. */
	u32 odd = region_load32(moves) | 1;

	/* What was moved before, without a signal, is there first. */
	virt_wmb();
	region_store32(moves, odd);
	/* Odd before it is written, */
	virt_wmb();
	region_write(to, from, size);
	/* and even only after it. */
	virt_wmb();
	region_store32(moves, odd + 1);
}

static void region_let_go(struct region *region, struct region_entry *entry)
{
	/* Nothing is written once it is not held. */
	virt_mb();
	region_swap32(&entry->held, region->incarnation, 0);
}

/*
 * Says that we write there. What stood there while the DMB was ours is of no
 * more use; what somebody has put there since, whose the entry is now, is not
 * replaced.
 */
static int region_hold(struct region *region, struct region_entry *entry, u64 token)
{
	u32 before;
	int i;

	for (i = 0; i < REGION_HOLD_TRIES; i++) {
		before = region_load32(&entry->held);
		virt_rmb();
		if (region_load64(&entry->token) != token)
			break;
		if (!region_swap32(&entry->held, before, region->incarnation))
			continue;
		/* Either its owner sees that, or we see that it has taken the DMB away. */
		virt_mb();
		if (region_load64(&entry->token) == token)
			return 0;
		region_let_go(region, entry);
		break;
	}
	return -EINVAL;
}

static int region_move_locked(struct region *region, u64 token, bool signal, unsigned int offset,
			      const void *data, unsigned int size)
{
	struct region_entry *entry = region_entry(region, region_token_slot(token),
						  region_token_entry(token));
	void *to = region_find_memory(region, token, offset, size);
	int ret;

	if (IS_ERR(to))
		return PTR_ERR(to);
	ret = region_hold(region, entry, token);
	if (ret)
		return ret;
	if (signal)
		region_write_signalled(&entry->moves, to, data, size);
	else
		region_write(to, data, size);
	region_let_go(region, entry);
	return 0;
}

int region_move_data(struct dibs_dev *dibs, u64 token, unsigned int idx, bool signal,
		     unsigned int offset, void *data, unsigned int size)
{
	struct region *region = dibs->drv_priv;
	u32 slot = region_token_slot(token);
	u32 entry = region_token_entry(token);
	spinlock_t *moving = &region->moving[(slot + entry) % REGION_MOVE_LOCKS];
	int ret;

	/* SMC has token 0 where it knows none yet, and so has an entry without a DMB. */
	if (!token || slot >= region->slots || entry >= region->entries ||
	    !READ_ONCE(region->peers[slot].present))
		return -EINVAL;
	spin_lock_bh(moving);
	ret = region_move_locked(region, token, signal, offset, data, size);
	spin_unlock_bh(moving);
	if (!ret && signal)
		region_ring(region, slot);
	return ret;
}
