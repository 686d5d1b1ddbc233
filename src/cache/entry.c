/*
 * entry.c
 *		An entry: one chunk of bytes that means the same wherever it is copied
 *		to; and the list of what a computation depends on, out of which it is
 *		built.
 *
 * Everything an entry has is found by adding up the sizes in its header, so
 * there is nothing to be adjusted when it is copied, and nothing but those
 * sizes to be checked when it was copied from memory that was being
 * overwritten.
 */
#include "postgres.h"

#include "cache/cache_internal.h"

#include "utils/memutils.h"

/* ---------------------------------------------------------------------
 * Where the parts are
 */

static inline Size
rings_offset(void)
{
	return MAXALIGN(sizeof(CacheEntry));
}

static inline Size
definitions_offset(const CacheEntry *entry)
{
	return rings_offset() + MAXALIGN(entry->num_rings * sizeof(CacheRingState));
}

static inline Size
relations_offset(const CacheEntry *entry)
{
	return definitions_offset(entry) +
		MAXALIGN(entry->num_definitions * sizeof(CacheDefinitionState));
}

static inline Size
key_offset(const CacheEntry *entry)
{
	return relations_offset(entry) + MAXALIGN(entry->num_relations * sizeof(Oid));
}

Size
cache_entry_label_offset(const CacheEntry *entry)
{
	return key_offset(entry) + MAXALIGN((Size) entry->key_len);
}

static inline Size
data_offset(const CacheEntry *entry)
{
	return cache_entry_label_offset(entry) + MAXALIGN((Size) entry->label_len);
}

const CacheRingState *
cache_entry_rings(const CacheEntry *entry)
{
	return (const CacheRingState *) ((const char *) entry + rings_offset());
}

const CacheDefinitionState *
cache_entry_definitions(const CacheEntry *entry)
{
	return (const CacheDefinitionState *) ((const char *) entry + definitions_offset(entry));
}

const Oid  *
cache_entry_relations(const CacheEntry *entry)
{
	return (const Oid *) ((const char *) entry + relations_offset(entry));
}

const char *
cache_entry_key(const CacheEntry *entry)
{
	return (const char *) entry + key_offset(entry);
}

const char *
cache_entry_label(const CacheEntry *entry)
{
	return (const char *) entry + cache_entry_label_offset(entry);
}

const char *
cache_entry_data(const CacheEntry *entry)
{
	return (const char *) entry + data_offset(entry);
}

bool
cache_entry_is_sane(const CacheEntry *entry, Size available)
{
	/* each length first by itself, so that their sum cannot overflow */
	return available >= sizeof(CacheEntry) &&
		entry->size <= available &&
		entry->key_len <= available &&
		entry->label_len <= available &&
		entry->data_len <= available &&
		entry->prefix_len <= entry->label_len &&
		entry->kind <= CACHE_ENTRY_DATUM &&
		entry->face <= CACHE_FACE_FUNCTION &&
		entry->size == data_offset(entry) + MAXALIGN((Size) entry->data_len);
}

/* ---------------------------------------------------------------------
 * Building
 */

static void
put_bytes(CacheEntry *entry, Size offset, const void *bytes, Size len)
{
	if (len > 0)
		memcpy((char *) entry + offset, bytes, len);
}

CacheEntry *
cache_entry_build(const CacheEntrySpec *spec,
				  const CacheRingState *rings, int num_rings,
				  const CacheDependencies *deps)
{
	CacheEntry	header = {0};
	CacheEntry *entry;
	Size		size;

	Assert(num_rings <= CACHE_MAX_DEPENDENCIES);
	Assert(spec->prefix_len <= spec->label_len);

	header.key_len = spec->key.len;
	header.label_len = spec->label_len;
	header.prefix_len = spec->prefix_len;
	header.data_len = spec->data_len;
	header.num_rings = num_rings;
	header.num_definitions = deps->num_definitions;
	header.num_relations = deps->num_relations;
	header.kind = spec->kind;
	header.face = spec->face;
	header.rows = spec->rows;
	header.hash = spec->key.hash;
	header.cost_ns = spec->cost_ns;
	header.filled_at = GetCurrentTimestamp();
	header.expires_at = spec->expires_at;

	/* Keys begin with database and role. */
	memcpy(&header.database, spec->key.data, sizeof(Oid));
	memcpy(&header.role, spec->key.data + sizeof(Oid), sizeof(Oid));

	size = data_offset(&header) + MAXALIGN((Size) spec->data_len);
	if (!AllocSizeIsValid(size))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("result is too large to be cached")));
	header.size = size;

	entry = palloc0(size);
	*entry = header;
	put_bytes(entry, rings_offset(), rings, num_rings * sizeof(CacheRingState));
	put_bytes(entry, definitions_offset(entry), deps->definitions,
			  deps->num_definitions * sizeof(CacheDefinitionState));
	put_bytes(entry, relations_offset(entry), deps->relations,
			  deps->num_relations * sizeof(Oid));
	put_bytes(entry, key_offset(entry), spec->key.data, spec->key.len);
	put_bytes(entry, cache_entry_label_offset(entry), spec->label, spec->label_len);
	put_bytes(entry, data_offset(entry), spec->data, spec->data_len);
	return entry;
}

/* ---------------------------------------------------------------------
 * What a computation depends on
 */

CacheDependencies *
cache_dependencies_create(MemoryContext context)
{
	CacheDependencies *deps = MemoryContextAllocZero(context, sizeof(CacheDependencies));

	deps->context = context;
	deps->refusal = CACHE_BYPASS_NONE;
	return deps;
}

/* The first reason is told. */
void
cache_dependencies_refuse(CacheDependencies *deps, CacheBypass reason, Oid relid)
{
	if (deps->refusal != CACHE_BYPASS_NONE)
		return;
	deps->refusal = reason;
	deps->refusal_relation = relid;
}

/*
 * Make room for one more in an array.  False when there may not be more: then
 * the result is not published.
 */
static bool
make_room(CacheDependencies *deps, void **array, int num, int *max, Size size)
{
	int			new_max;

	if (num < *max)
		return true;
	if (num >= CACHE_MAX_DEPENDENCIES)
	{
		cache_dependencies_refuse(deps, CACHE_BYPASS_OVERSIZED, InvalidOid);
		return false;
	}
	new_max = Max(16, Min(2 * num, CACHE_MAX_DEPENDENCIES));
	*array = *array == NULL ?
		MemoryContextAlloc(deps->context, new_max * size) :
		repalloc(*array, new_max * size);
	*max = new_max;
	return true;
}

void
cache_dependencies_add_ring(CacheDependencies *deps, CacheRing ring)
{
	for (int i = 0; i < deps->num_rings; i++)
		if (deps->rings[i] == ring)
			return;
	if (make_room(deps, (void **) &deps->rings, deps->num_rings,
				  &deps->max_rings, sizeof(CacheRing)))
		deps->rings[deps->num_rings++] = ring;
}

void
cache_dependencies_add_definition(CacheDependencies *deps, CacheDefinition definition)
{
	CacheDefinitionState state;

	for (int i = 0; i < deps->num_definitions; i++)
		if (deps->definitions[i].definition == definition)
			return;
	if (!make_room(deps, (void **) &deps->definitions, deps->num_definitions,
				   &deps->max_definitions, sizeof(CacheDefinitionState)))
		return;
	memset(&state, 0, sizeof(state));
	state.definition = definition;
	state.value = cache_definition_use(definition);
	deps->definitions[deps->num_definitions++] = state;
}

void
cache_dependencies_add_relation(CacheDependencies *deps, Oid relid)
{
	for (int i = 0; i < deps->num_relations; i++)
		if (deps->relations[i] == relid)
			return;
	if (make_room(deps, (void **) &deps->relations, deps->num_relations,
				  &deps->max_relations, sizeof(Oid)))
		deps->relations[deps->num_relations++] = relid;
}
