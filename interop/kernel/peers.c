// SPDX-License-Identifier: GPL-2.0-only
/*
 * The other endpoints: who is there, what they signal, events to and from them.
 * This endpoint is one of them, so that it can use its own DMBs.
 */
#include <linux/jiffies.h>
#include <linux/ktime.h>
#include <linux/unaligned.h>

#include "region.h"

#define REGION_EVENT_INTERVAL	msecs_to_jiffies(10)

/* So long what an endpoint has sent before it ended can still be read. */
#define REGION_GRACE		HZ

/*
 * Whether SMC could take one for the other. It compares the second half alone
 * when it ends what it has with a GID, and then takes a first half of 0 for all.
 */
static bool region_gids_clash(const uuid_t *a, const uuid_t *b)
{
	return !memcmp(a->b, b->b, 8) || !memcmp(a->b + 8, b->b + 8, 8);
}

static bool region_gid_valid(const uuid_t *gid)
{
	return get_unaligned((u64 *)gid->b) && get_unaligned((u64 *)(gid->b + 8));
}

/* Whether nobody else has claimed the GID of this slot. */
static bool region_gid_unique(struct region *region, u32 slot)
{
	u32 other;

	for (other = 0; other < region->slots; other++) {
		if (other != slot && region->peers[other].present &&
		    region_gids_clash(&region->peers[other].gid, &region->peers[slot].gid))
			return false;
	}
	return true;
}

/* The slot with this GID. A GID that two have is that of nobody. Under dibs->lock. */
int region_find_peer(struct region *region, const uuid_t *gid)
{
	u32 slot;

	for (slot = 0; slot < region->slots; slot++) {
		if (region->peers[slot].present && uuid_equal(&region->peers[slot].gid, gid))
			return region_gid_unique(region, slot) ? slot : -ENETUNREACH;
	}
	return -ENETUNREACH;
}

static void region_ring_locked(struct region *region, u32 slot)
{
	struct region_peer *peer = &region->peers[slot];

	peer->rung++;
	/* After what the signal is about. */
	virt_wmb();
	region_store32(&region_words(region, region->slot, slot)->rung, peer->rung);
	if (peer->present && peer->belled)
		writel(IVSHMEM_BELL(slot), region->registers + IVSHMEM_DOORBELL);
}

void region_ring(struct region *region, u32 slot)
{
	unsigned long flags;

	spin_lock_irqsave(&region->dibs->lock, flags);
	region_ring_locked(region, slot);
	spin_unlock_irqrestore(&region->dibs->lock, flags);
}

static void region_deliver(struct region *region, const struct dibs_event *event)
{
	struct dibs_dev *dibs = region->dibs;
	int i;

	for (i = 0; i < MAX_DIBS_CLIENTS; i++) {
		if (dibs->subs[i])
			dibs->subs[i]->ops->handle_event(dibs, event);
	}
}

/* SMC throws away what it has not handed out yet when it hears of this. */
static void region_tell_end(struct region *region, struct region_peer *peer)
{
	struct dibs_event event = {
		.type = DIBS_DEV_EVENT,
		.subtype = DIBS_DEV_DISABLED,
		.gid = peer->gone_gid,
		.time = ktime_get_real_ns(),
	};

	peer->gone = false;
	region_deliver(region, &event);
}

/*
 * Only an endpoint that clients have asked for has connections to lose. Another
 * may have copied the GID of one, and nothing of that one must end with it.
 */
static void region_peer_ended(struct region *region, struct region_peer *peer)
{
	/* Its last words lie in memory of our own, and were written before it left. */
	virt_rmb();
	region_look_at_dmbs(region, peer - region->peers);
	if (peer->known) {
		if (peer->gone)
			region_tell_end(region, peer);
		peer->gone = true;
		peer->gone_until = jiffies + REGION_GRACE;
		peer->gone_gid = peer->gid;
	}
	peer->present = false;
	peer->known = false;
	peer->waiting = false;
}

/* Looks whether an endpoint has come or gone. Whether there is a new one. */
static bool region_refresh_peer(struct region *region, u32 slot)
{
	struct region_control *control = region_control(region, slot);
	struct region_peer *peer = &region->peers[slot];
	__le64 *connections = region->base + REGION_CONNECTIONS;
	u64 connection = region_load64(&connections[slot]);
	u64 state = region_load64(&control->state);
	u32 incarnation = state >> 32;
	bool here = connection & REGION_CONNECTED && state & REGION_PRESENT && incarnation;
	uuid_t gid;
	u32 flags;

	if (peer->present) {
		if (here && connection >> 32 == peer->connection &&
		    incarnation == peer->incarnation)
			return false;
		region_peer_ended(region, peer);
	}
	if (!here)
		return false;

	/* What else it says was written before the state. */
	virt_rmb();
	memcpy(&gid, &control->gid, sizeof(gid));
	flags = region_load32(&control->flags);
	barrier_data(&gid);
	/* If that has not changed meanwhile, all of it belongs together. */
	virt_rmb();
	if (region_load64(&control->state) != state || !region_gid_valid(&gid))
		return false;
	peer->connection = connection >> 32;
	peer->incarnation = incarnation;
	peer->gid = gid;
	peer->belled = flags & REGION_FLAG_BELLED;
	peer->present = true;
	return true;
}

static void region_take_event(struct region *region, u32 slot)
{
	struct region_words *theirs = region_words(region, slot, region->slot);
	struct region_peer *peer = &region->peers[slot];
	struct dibs_event event = { .type = DIBS_SW_EVENT, .gid = peer->gid };
	u32 number = region_load32(&theirs->event);

	/* Who sends more than this has to wait, and does not fill our memory with them. */
	if (number == peer->taken || time_before(jiffies, peer->next_event))
		return;
	peer->next_event = jiffies + REGION_EVENT_INTERVAL;
	/* Its number was written last. */
	virt_rmb();
	event.subtype = region_load32(&theirs->code);
	event.data = region_load64(&theirs->data);
	event.time = ktime_get_real_ns();
	/* We have read it before the next one may be written. */
	virt_mb();
	peer->taken = number;
	region_store32(&region_words(region, region->slot, slot)->taken, number);
	if (peer->known || region_gid_unique(region, slot))
		region_deliver(region, &event);
}

static bool region_event_taken(struct region *region, u32 slot)
{
	return region_load32(&region_words(region, slot, region->slot)->taken) ==
	       region->peers[slot].event;
}

static void region_send_event(struct region *region, u32 slot, u32 code, u64 data)
{
	struct region_words *ours = region_words(region, region->slot, slot);
	struct region_peer *peer = &region->peers[slot];

	/* The last one was taken before this is written. */
	virt_mb();
	region_store64(&ours->data, data);
	region_store32(&ours->code, code);
	/* Its number is written last. */
	virt_wmb();
	region_store32(&ours->event, ++peer->event);
	region_ring_locked(region, slot);
}

static void region_send_waiting_event(struct region *region, u32 slot)
{
	struct region_peer *peer = &region->peers[slot];

	if (peer->waiting && region_event_taken(region, slot)) {
		peer->waiting = false;
		region_send_event(region, slot, peer->waiting_code, peer->waiting_data);
	}
}

static void region_look_at_peer(struct region *region, u32 slot)
{
	struct region_peer *peer = &region->peers[slot];
	bool joined = region_refresh_peer(region, slot);
	u32 rung;

	if (peer->gone && time_after_eq(jiffies, peer->gone_until))
		region_tell_end(region, peer);
	if (!peer->present)
		return;
	region_send_waiting_event(region, slot);
	region_take_event(region, slot);
	rung = region_load32(&region_words(region, slot, region->slot)->rung);
	if (rung == peer->rung_seen && !joined)
		return;
	peer->rung_seen = rung;
	/* What was signalled was written before. */
	virt_rmb();
	region_look_at_dmbs(region, slot);
}

/*
 * What an interrupt is for. Everybody may cause one or leave one out, so it is
 * also done every now and then.
 */
void region_look(struct region *region)
{
	unsigned long flags;
	u32 slot;

	spin_lock_irqsave(&region->dibs->lock, flags);
	for (slot = 0; slot < region->slots; slot++)
		region_look_at_peer(region, slot);
	region_free_parked(region);
	spin_unlock_irqrestore(&region->dibs->lock, flags);
}

int region_query_remote_gid(struct dibs_dev *dibs, const uuid_t *gid, u32 vlan_valid, u32 vlan)
{
	struct region *region = dibs->drv_priv;
	unsigned long flags;
	int slot;

	/* It may have come just now. */
	region_look(region);
	spin_lock_irqsave(&dibs->lock, flags);
	slot = region_find_peer(region, gid);
	if (slot >= 0 && vlan_valid && !region_has_vlan(region, slot, vlan))
		slot = -ENETUNREACH;
	if (slot >= 0)
		region->peers[slot].known = true;
	spin_unlock_irqrestore(&dibs->lock, flags);
	return slot < 0 ? slot : 0;
}

int region_signal_event(struct dibs_dev *dibs, const uuid_t *gid, u32 trigger_irq, u32 code,
			u64 data)
{
	struct region *region = dibs->drv_priv;
	struct region_peer *peer;
	unsigned long flags;
	int slot, ret = 0;

	spin_lock_irqsave(&dibs->lock, flags);
	slot = region_find_peer(region, gid);
	if (slot < 0) {
		ret = slot;
		goto unlock;
	}
	peer = &region->peers[slot];
	region_send_waiting_event(region, slot);
	if (region_event_taken(region, slot)) {
		region_send_event(region, slot, code, data);
	} else if (!peer->waiting) {
		peer->waiting = true;
		peer->waiting_code = code;
		peer->waiting_data = data;
	} else {
		ret = -EBUSY;
	}
unlock:
	spin_unlock_irqrestore(&dibs->lock, flags);
	return ret;
}
