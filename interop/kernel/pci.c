// SPDX-License-Identifier: GPL-2.0-only
/*
 * A region that a server hands to virtual machines as the memory of ivshmem,
 * with its doorbell (QEMU: -device ivshmem-doorbell), as a DIBS device.
 */
#include <linux/bitmap.h>
#include <linux/delay.h>
#include <linux/interrupt.h>
#include <linux/memremap.h>
#include <linux/module.h>

#include "region.h"

#define IVSHMEM_VENDOR		0x1af4
#define IVSHMEM_DEVICE		0x1110
#define IVSHMEM_REVISION	1
#define IVSHMEM_REGISTERS_BAR	0
#define IVSHMEM_MEMORY_BAR	2

#define FOLIO_SIZE		(PAGE_SIZE << REGION_FOLIO_ORDER)

/* A DMB may begin at any page of a region, and SMC asks for the page it begins at. */
static_assert(PAGE_SIZE == REGION_PAGE);

/* How long a signal is overlooked whose interrupt was not made. */
#define REGION_LOOK_INTERVAL	(HZ / 5)

static const struct dibs_dev_ops region_ops = {
	.get_fabric_id = region_get_fabric_id,
	.query_remote_gid = region_query_remote_gid,
	.max_dmbs = region_max_dmbs,
	.register_dmb = region_register_dmb,
	.unregister_dmb = region_unregister_dmb,
	.move_data = region_move_data,
	.add_vlan_id = region_add_vlan_id,
	.del_vlan_id = region_del_vlan_id,
	.signal_event = region_signal_event,
};

static irqreturn_t region_interrupt(int irq, void *data)
{
	region_look(data);
	return IRQ_HANDLED;
}

static void region_look_now_and_then(struct work_struct *work)
{
	struct region *region = container_of(work, struct region, look.work);

	region_look(region);
	schedule_delayed_work(&region->look, REGION_LOOK_INTERVAL);
}

/*
 * SMC asks for the page of a DMB, and takes it for the first of a folio. So the
 * memory is mapped as memory is, not as registers are.
 */
static int region_map(struct region *region)
{
	struct pci_dev *pdev = region->pdev;
	struct dev_pagemap *pagemap;
	int ret;

	ret = pcim_enable_device(pdev);
	if (ret)
		return ret;
	region->registers = pcim_iomap_region(pdev, IVSHMEM_REGISTERS_BAR, KBUILD_MODNAME);
	if (IS_ERR(region->registers))
		return PTR_ERR(region->registers);
	ret = pcim_request_region(pdev, IVSHMEM_MEMORY_BAR, KBUILD_MODNAME);
	if (ret)
		return ret;

	pagemap = devm_kzalloc(&pdev->dev, sizeof(*pagemap), GFP_KERNEL);
	if (!pagemap)
		return -ENOMEM;
	region->base_phys = pci_resource_start(pdev, IVSHMEM_MEMORY_BAR);
	pagemap->type = MEMORY_DEVICE_GENERIC;
	pagemap->vmemmap_shift = REGION_FOLIO_ORDER;
	pagemap->nr_range = 1;
	pagemap->range.start = region->base_phys;
	pagemap->range.end = pci_resource_end(pdev, IVSHMEM_MEMORY_BAR);
	if (range_len(&pagemap->range) < max(memremap_compat_align(), FOLIO_SIZE)) {
		dev_err(&pdev->dev, "a memory of %llu bytes is too small\n",
			range_len(&pagemap->range));
		return -EINVAL;
	}
	region->base = devm_memremap_pages(&pdev->dev, pagemap);
	return PTR_ERR_OR_ZERO(region->base);
}

/* Takes what the server says: what is in the memory, and which slot is ours. */
static int region_attach(struct region *region)
{
	struct device *dev = &region->pdev->dev;
	__le64 *connections = region->base + REGION_CONNECTIONS;
	int ret;

	ret = region_read_header(region, pci_resource_len(region->pdev, IVSHMEM_MEMORY_BAR));
	if (ret) {
		dev_err(dev, "no region is in the memory, or none that fits it\n");
		return ret;
	}
	region->slot = readl(region->registers + IVSHMEM_POSITION);
	if (region->slot >= region->slots) {
		dev_err(dev, "there are %u slots, ours is %u\n", region->slots, region->slot);
		return -ENOSPC;
	}
	if (!(region_load64(&connections[region->slot]) & REGION_CONNECTED)) {
		dev_err(dev, "the server does not know of slot %u\n", region->slot);
		return -ENOTCONN;
	}
	return 0;
}

static int region_allocate(struct region *region)
{
	struct device *dev = &region->pdev->dev;

	region->dmbs = devm_kcalloc(dev, region->entries, sizeof(*region->dmbs), GFP_KERNEL);
	region->pages = devm_bitmap_zalloc(dev, div_u64(region->slice, REGION_PAGE), GFP_KERNEL);
	return region->dmbs && region->pages ? 0 : -ENOMEM;
}

static int region_allocate_dibs(struct region *region)
{
	struct pci_dev *pdev = region->pdev;
	struct dibs_dev *dibs = dibs_dev_alloc();

	if (!dibs)
		return -ENOMEM;
	region->dibs = dibs;
	dibs->drv_priv = region;
	dibs->ops = &region_ops;
	dibs->dev.parent = &pdev->dev;
	uuid_gen(&dibs->gid);
	return dev_set_name(&dibs->dev, "region%x",
			    pci_domain_nr(pdev->bus) << 16 | pci_dev_id(pdev));
}

static int region_request_interrupt(struct region *region)
{
	struct pci_dev *pdev = region->pdev;
	int ret;

	pci_set_master(pdev);
	ret = pci_alloc_irq_vectors(pdev, 1, 1, PCI_IRQ_MSIX);
	if (ret < 0)
		return ret;
	ret = request_irq(pci_irq_vector(pdev, 0), region_interrupt, 0, pci_name(pdev), region);
	if (ret)
		pci_free_irq_vectors(pdev);
	return ret;
}

static void region_free_interrupt(struct region *region)
{
	free_irq(pci_irq_vector(region->pdev, 0), region);
	pci_free_irq_vectors(region->pdev);
}

static struct region *region_new(struct pci_dev *pdev)
{
	struct region *region = devm_kzalloc(&pdev->dev, sizeof(*region), GFP_KERNEL);
	int i;

	if (!region)
		return NULL;
	region->pdev = pdev;
	spin_lock_init(&region->vlan_lock);
	for (i = 0; i < REGION_MOVE_LOCKS; i++)
		spin_lock_init(&region->moving[i]);
	INIT_DELAYED_WORK(&region->look, region_look_now_and_then);
	return region;
}

static int region_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct region *region;
	int ret;

	if (pdev->revision != IVSHMEM_REVISION)
		return -ENODEV;
	region = region_new(pdev);
	if (!region)
		return -ENOMEM;
	ret = region_map(region);
	if (!ret)
		ret = region_attach(region);
	if (!ret)
		ret = region_allocate(region);
	if (ret)
		return ret;

	ret = region_allocate_dibs(region);
	if (ret)
		goto put_dibs;
	ret = region_request_interrupt(region);
	if (ret)
		goto put_dibs;
	pci_set_drvdata(pdev, region);
	region_join(region);
	ret = dibs_dev_add(region->dibs);
	if (ret)
		goto leave;
	schedule_delayed_work(&region->look, REGION_LOOK_INTERVAL);
	return 0;

leave:
	region_leave(region);
	region_free_interrupt(region);
put_dibs:
	if (region->dibs)
		put_device(&region->dibs->dev);
	return ret;
}

static bool region_has_used_pages(struct region *region)
{
	resource_size_t len = pci_resource_len(region->pdev, IVSHMEM_MEMORY_BAR);
	unsigned long pfn = PHYS_PFN(region->base_phys), end = pfn + PHYS_PFN(len);

	for (; pfn < end; pfn += REGION_FOLIO_PAGES) {
		if (folio_ref_count(page_folio(pfn_to_page(pfn))) > 1)
			return true;
	}
	return false;
}

/*
 * What was spliced from a socket lies in a pipe as pages of a DMB, also once the
 * socket is closed, or on its way in another one. Nothing else waits for these
 * pages before the memory goes.
 */
static void region_wait_for_pages(struct region *region)
{
	if (!region_has_used_pages(region))
		return;
	dev_warn(&region->pdev->dev, "waiting for what was spliced, and not read yet\n");
	while (region_has_used_pages(region))
		msleep(100);
}

static void region_remove(struct pci_dev *pdev)
{
	struct region *region = pci_get_drvdata(pdev);

	/* SMC ends its connections, for which it still has to be told of signals. */
	dibs_dev_del(region->dibs);
	cancel_delayed_work_sync(&region->look);
	region_leave(region);
	region_free_interrupt(region);
	put_device(&region->dibs->dev);
	region_wait_for_pages(region);
}

/* The memory outlives a restart of the machine, so the others have to be told. */
static void region_shutdown(struct pci_dev *pdev)
{
	region_leave(pci_get_drvdata(pdev));
}

static const struct pci_device_id region_ids[] = {
	{ PCI_DEVICE(IVSHMEM_VENDOR, IVSHMEM_DEVICE) },
	{ }
};
MODULE_DEVICE_TABLE(pci, region_ids);

static struct pci_driver region_driver = {
	.name = KBUILD_MODNAME,
	.id_table = region_ids,
	.probe = region_probe,
	.remove = region_remove,
	.shutdown = region_shutdown,
};
module_pci_driver(region_driver);

MODULE_DESCRIPTION("DIBS device in a memory that virtual machines share (ivshmem)");
MODULE_LICENSE("GPL");
