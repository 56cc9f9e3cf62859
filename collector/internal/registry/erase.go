// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"slices"
	"time"

	"provost/collector/internal/store"
	"provost/proto"
)

// FailedSecrets is how long after its failure an install that nobody goes on with keeps its secrets: until then an operator
// may let it boot once more.
const FailedSecrets = 24 * time.Hour

// spent reports whether nothing of an install's plan or answer files will be asked for any more: its system is up, it was
// ended, or a newer one is ordered; or it failed a day ago. What the node gets at its next network boot is never spent: the
// installer once more, or what a diskless node fetches at each boot.
func (in *install) spent(n *node, now time.Time) bool {
	rec := in.rec.Load()
	if rec.Superseded {
		return true
	}
	v := in.look()
	if !v.Ended || n != nil && n.Install == in.id && (n.BootAction == proto.BootInstall || in.recipe.diskless()) {
		return false
	}
	return over(v) || now.Sub(v.Since) >= FailedSecrets
}

// eraseEnded erases the secrets of the installs that are over: the values in their plans, those of their answer files, and
// what their steps keep over reboots. What was ordered stays known by the digests in their records. The pages that held
// them are free from then on, and have the old bytes until they are written again, or the database is compacted.
func (r *Registry) eraseEnded(ctx context.Context) error {
	now := r.now()
	r.pub.RLock()
	all := make([]*install, 0, len(r.pub.installs))
	for _, in := range r.pub.installs {
		if !in.rec.Load().Erased {
			all = append(all, in)
		}
	}
	nodes := make([]*node, len(all))
	for i, in := range all {
		nodes[i] = r.pub.nodes[in.rec.Load().Node]
	}
	r.pub.RUnlock()
	var ids []string
	for i, in := range all {
		if in.spent(nodes[i], now) {
			ids = append(ids, in.id)
		}
	}
	slices.Sort(ids)
	for piece := range slices.Chunk(ids, removeStep) {
		err := r.update(ctx, func(c *change) error {
			for _, id := range piece {
				if err := c.erase(id, now); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *change) erase(id string, now time.Time) error {
	old := c.record(id)
	if old == nil || old.Erased {
		return nil
	}
	in := c.install(id)
	if n := c.node(old.Node); !old.Superseded && !in.spent(n, now) {
		return nil // an operator was faster
	}
	rec := old.clone()
	rec.Erased = true
	if err := c.dropPlan(rec); err != nil {
		return err
	}
	if a := in.recipe.Answer; a != nil && len(a.Secrets) > 0 {
		recipe := *in.recipe
		recipe.Answer = nil // nobody gets an answer file of this install any more
		b, err := encode("recipe", &recipe)
		if err != nil {
			return err
		}
		rec.Recipe = proto.Digest(b)
		c.putFile(rec.Recipe, b)
	}
	c.r.unused.Store(true)
	return c.putInstall(rec)
}

// putFile keeps a script or recipe. Removing those that nobody names waits for the next round then.
func (c *change) putFile(digest string, b []byte) {
	c.r.m.touched[digest] = true
	c.tx.Put(store.Files, digest, orEmpty(b))
}

// sweepFiles removes the scripts and recipes that no install names any more. Those that are used again in the meantime are
// left: an order puts what it needs, and names it, in one decision of the writer.
func (r *Registry) sweepFiles(ctx context.Context) error {
	if !r.unused.Swap(false) {
		return nil
	}
	err := r.sweep(ctx)
	if err != nil {
		r.unused.Store(true)
	}
	return err
}

func (r *Registry) sweep(ctx context.Context) error {
	// When this returns, whatever was decided before it is published, and what is decided from now on is in touched.
	if err := r.update(ctx, func(c *change) error { clear(c.r.m.touched); return nil }); err != nil {
		return err
	}
	named := map[string]bool{}
	r.pub.RLock()
	for _, in := range r.pub.installs {
		rec := in.rec.Load()
		named[rec.Recipe], named[rec.StepList] = true, true
		for _, s := range rec.Steps {
			named[s.Digest] = true
		}
		for _, digest := range rec.Files {
			named[digest] = true
		}
	}
	r.pub.RUnlock()
	var gone []string
	for from := ""; ; {
		n := 0
		err := r.st.View(func(s *store.Reader) error {
			s.Keys(store.Files, from, func(key string) bool {
				if !named[key] {
					gone = append(gone, key)
				}
				from, n = key+"\x00", n+1
				return n < 1024
			})
			return nil
		})
		if err != nil {
			return err
		}
		if n < 1024 {
			break
		}
	}
	for piece := range slices.Chunk(gone, removeStep) {
		err := r.update(ctx, func(c *change) error {
			for _, key := range piece {
				if !c.r.m.touched[key] {
					c.tx.Delete(store.Files, key)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
	return nil
}
