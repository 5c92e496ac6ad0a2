// SPDX-License-Identifier: GPL-2.0-only
/*
 * The region as a whole: what its header says, this endpoint's own control page.
 */
#include <linux/jiffies.h>
#include <linux/random.h>

#include "region.h"

/* SMC asks for this VLAN to learn whether the fabric can do its version 2, and that one can. */
#define VLAN_SMC_V2		0x1FFF

/* Takes what the header says, if the memory of @len bytes has room for it. */
int region_read_header(struct region *region, u64 len)
{
	struct region_header header;
	u64 bytes;
	u32 fabric;

	memcpy(&header.magic, region->base, sizeof(header.magic));
	if (memcmp(header.magic, REGION_MAGIC, sizeof(header.magic)))
		return -ENODEV;
	/* The magic was written last. */
	virt_rmb();
	memcpy(&header, region->base, sizeof(header));
	/* From here on the compiler has to take the copy. */
	barrier_data(&header);

	bytes = le64_to_cpu(header.bytes);
	fabric = le32_to_cpu(header.fabric);
	region->slots = le32_to_cpu(header.slots);
	region->entries = le32_to_cpu(header.entries);
	if (le32_to_cpu(header.version) != REGION_VERSION ||
	    le32_to_cpu(header.liveness) != REGION_LIVENESS_SERVER)
		return -EOPNOTSUPP;
	if (fabric < REGION_FABRIC_MIN || fabric > REGION_FABRIC_MAX ||
	    region->slots < 2 || region->slots > REGION_MAX_SLOTS ||
	    region->entries < REGION_MIN_ENTRIES || region->entries > REGION_MAX_ENTRIES ||
	    region->entries % REGION_MIN_ENTRIES || bytes > len || bytes % REGION_PAGE)
		return -EINVAL;

	region->fabric = fabric;
	region->area = REGION_PAGE + region->entries * sizeof(struct region_entry);
	region->slices = REGION_AREAS + region->slots * region->area;
	if (bytes < region->slices)
		return -EINVAL;
	region->slice = div_u64(bytes - region->slices, region->slots);
	region->slice = round_down(region->slice, REGION_PAGE);
	return region->slice ? 0 : -EINVAL;
}

u16 region_get_fabric_id(struct dibs_dev *dibs)
{
	struct region *region = dibs->drv_priv;

	return region->fabric;
}

static void region_ring_all(struct region *region)
{
	u32 slot;

	for (slot = 0; slot < region->slots; slot++)
		region_ring(region, slot);
}

/*
 * Takes our slot, also from a driver before us that did not leave it. Words that
 * count go on from where they are, so that the others see each change.
 */
void region_join(struct region *region)
{
	struct region_control *control = region_control(region, region->slot);
	u32 slot;

	region_store64(&control->state, 0);
	/* Nobody takes what follows for that of the one before. */
	virt_mb();
	region_take_over(region);
	memset(control->vlans, 0, sizeof(control->vlans));
	control->gid = region->dibs->gid;
	region_store32(&control->flags, REGION_FLAG_SIGNALLED | REGION_FLAG_BELLED);
	for (slot = 0; slot < region->slots; slot++) {
		struct region_words *ours = region_words(region, region->slot, slot);
		struct region_words *theirs = region_words(region, slot, region->slot);
		struct region_peer *peer = &region->peers[slot];

		peer->rung = region_load32(&ours->rung);
		peer->rung_seen = region_load32(&theirs->rung);
		peer->event = region_load32(&theirs->taken);
		peer->taken = region_load32(&theirs->event);
		peer->next_event = jiffies;
		region_store32(&ours->event, peer->event);
		region_store32(&ours->taken, peer->taken);
	}
	do {
		region->incarnation = get_random_u32();
	} while (!region->incarnation);
	/* The state is written last. */
	virt_wmb();
	region_store64(&control->state, (u64)region->incarnation << 32 | REGION_PRESENT);
	/* The others see us present if they look after we have. */
	virt_mb();
	region_look(region);
	region_ring_all(region);
}

void region_leave(struct region *region)
{
	region_store64(&region_control(region, region->slot)->state,
		       (u64)region->incarnation << 32);
	/* Who is rung finds us gone. */
	virt_mb();
	region_ring_all(region);
}

int region_add_vlan_id(struct dibs_dev *dibs, u64 vlan)
{
	struct region *region = dibs->drv_priv;
	struct region_control *control = region_control(region, region->slot);
	int i, empty = -1, ret = 0;
	unsigned long flags;

	if (!vlan || vlan > U16_MAX)
		return -EINVAL;
	spin_lock_irqsave(&region->vlan_lock, flags);
	for (i = REGION_VLANS - 1; i >= 0; i--) {
		if (region->vlans[i] == vlan)
			goto unlock;
		if (!region->vlans[i])
			empty = i;
	}
	if (empty < 0) {
		ret = -ENOSPC;
		goto unlock;
	}
	region->vlans[empty] = vlan;
	WRITE_ONCE(control->vlans[empty], cpu_to_le16(vlan));
unlock:
	spin_unlock_irqrestore(&region->vlan_lock, flags);
	return ret;
}

int region_del_vlan_id(struct dibs_dev *dibs, u64 vlan)
{
	struct region *region = dibs->drv_priv;
	struct region_control *control = region_control(region, region->slot);
	unsigned long flags;
	int i, ret = -ENOENT;

	spin_lock_irqsave(&region->vlan_lock, flags);
	for (i = 0; vlan && i < REGION_VLANS; i++) {
		if (region->vlans[i] == vlan) {
			region->vlans[i] = 0;
			WRITE_ONCE(control->vlans[i], 0);
			ret = 0;
		}
	}
	spin_unlock_irqrestore(&region->vlan_lock, flags);
	return ret;
}

/* Whether the endpoint says that it is in this VLAN. */
bool region_has_vlan(struct region *region, u32 slot, u32 vlan)
{
	struct region_control *control = region_control(region, slot);
	int i;

	if (vlan == VLAN_SMC_V2)
		return true;
	for (i = 0; i < REGION_VLANS; i++) {
		if (le16_to_cpu(READ_ONCE(control->vlans[i])) == vlan)
			return true;
	}
	return false;
}
