// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"provost/collector/internal/nodeset"
	"provost/collector/internal/store"
	"provost/proto"
)

// Key is what a client calls an order by, so that it can give it again when it got no answer: it is carried out once.
type Key struct {
	Name  string // the client's own, for one order of its actor
	Order string // digest of what is ordered
}

// Bounds of what is kept of orders with a key, over restarts as well. Beyond, the oldest go, with the next order that has one.
// A client gives an order again within minutes; a script that looks at its own errors may take a day.
const keyLife = 24 * time.Hour

var defaultKeyBounds = keyBounds{orders: 4096, bytes: 16 << 20}

type keyBounds struct {
	orders uint64
	bytes  int // of their records; the newest stays, however large it is
}

// GivenError says that an order was given before, under the same key: to these nodes, with this news in their plans.
type GivenError struct {
	Nodes       []string
	PlanChanges []proto.PlanChange
}

func (e *GivenError) Error() string { return "the order was given before" }

// givenOrder is a value of bucket history: an order that was given with a key.
type givenOrder struct {
	Number      uint64             `json:"number"`
	Order       string             `json:"order"`
	At          time.Time          `json:"at"`
	Nodes       string             `json:"nodes"` // folded
	PlanChanges []proto.PlanChange `json:"plan_changes,omitempty"`
}

// givenNumber is another: the same by its number, in the order in which they go.
type givenNumber struct {
	Key  string    `json:"key"`
	At   time.Time `json:"at"`
	Size int       `json:"size"`
}

// givenRange is the third: which numbers there may be, and how many bytes the orders have.
type givenRange struct {
	First uint64 `json:"first"`
	Next  uint64 `json:"next"`
	Bytes int    `json:"bytes"`
}

const givenRangeKey = "given"

func givenNumberKey(n uint64) string { return fmt.Sprintf("i/%020d", n) }

// orderKey is the key of the caller's order in bucket history.
func (w Caller) orderKey() string { return "k/" + proto.Digest([]byte(w.Actor+"\x00"+w.Key.Name)) }

var errGiven = errors.New("given before")

// once makes a decision that is an order to these nodes. Where the caller has a key it is made once: a repeat is a *GivenError,
// and the key with another order a refusal. What is refused is not kept: its repeat is judged anew.
func (r *Registry) once(ctx context.Context, names []string, changes []proto.PlanChange, fn func(c *change) error) error {
	who := callerOf(ctx)
	if who.Key == nil {
		return r.update(ctx, fn)
	}
	o := givenOrder{Order: who.Key.Order, Nodes: nodeset.Fold(names), PlanChanges: changes}
	var was *givenOrder
	err := r.update(ctx, func(c *change) (err error) {
		if was, err = given(c.tx.Get, who, c.now); err != nil {
			return err
		}
		if was != nil {
			return errGiven
		}
		if err := fn(c); err != nil {
			return err
		}
		return c.keepGiven(o)
	})
	if errors.Is(err, errGiven) {
		return was.asError()
	}
	return err
}

// Given is a *GivenError if the caller's order was given before, and a refusal if its key was another's. Nil says that it may
// be given now; the writer looks again.
func (r *Registry) Given(ctx context.Context) error {
	who := callerOf(ctx)
	if who.Key == nil {
		return nil
	}
	var was *givenOrder
	err := r.st.View(func(s *store.Reader) (err error) { was, err = given(s.Get, who, r.now()); return err })
	if err != nil || was == nil {
		return err
	}
	return was.asError()
}

// given looks for the caller's order, nil if it was not given. One that is older than its life counts as none.
func given(get func(store.Bucket, string) []byte, who Caller, now time.Time) (*givenOrder, error) {
	b := get(store.History, who.orderKey())
	if b == nil {
		return nil, nil
	}
	o := &givenOrder{}
	if err := readJSON(b, o, "order with key", who.Key.Name); err != nil {
		return nil, err
	}
	if now.Sub(o.At) >= keyLife {
		return nil, nil
	}
	if o.Order != who.Key.Order {
		return nil, problem(422, proto.CodeKeyReused, "a key is for one order and its repeats: make a new one", "nothing was ordered: the key %q stands for another order, of %s",
			who.Key.Name, o.At.Format(time.RFC3339))
	}
	return o, nil
}

func (o *givenOrder) asError() error {
	names, err := nodeset.Eval(o.Nodes, resolver{}) // of names alone: nobody is asked for a group
	if err != nil {
		return fmt.Errorf("reading the nodes of order %d: %w", o.Number, err)
	}
	return &GivenError{names, o.PlanChanges}
}

// keepGiven notes the order at hand under the caller's key, and drops those beyond the bounds.
func (c *change) keepGiven(o givenOrder) error {
	var all givenRange
	if b := c.tx.Get(store.History, givenRangeKey); b != nil {
		if err := readJSON(b, &all, "orders with a key", "range"); err != nil {
			return err
		}
	}
	key := c.who.orderKey()
	if b := c.tx.Get(store.History, key); b != nil { // its life is over
		var old givenOrder
		if err := readJSON(b, &old, "order with key", c.who.Key.Name); err != nil {
			return err
		}
		c.tx.Delete(store.History, givenNumberKey(old.Number))
		all.Bytes -= len(b)
	}
	o.Number, o.At = all.Next, c.now
	b, err := encode("order", o)
	if err != nil {
		return err
	}
	c.tx.Put(store.History, key, b)
	number, err := encode("order", givenNumber{key, o.At, len(b)})
	if err != nil {
		return err
	}
	c.tx.Put(store.History, givenNumberKey(o.Number), number)
	all.Next++
	all.Bytes += len(b)
	for ; all.First < o.Number; all.First++ {
		v := c.tx.Get(store.History, givenNumberKey(all.First))
		if v == nil {
			continue
		}
		var n givenNumber
		if err := readJSON(v, &n, "order with a key", givenNumberKey(all.First)); err != nil {
			return err
		}
		if all.Next-all.First <= c.r.keys.orders && all.Bytes <= c.r.keys.bytes && c.now.Sub(n.At) < keyLife {
			break
		}
		c.tx.Delete(store.History, n.Key)
		c.tx.Delete(store.History, givenNumberKey(all.First))
		all.Bytes -= n.Size
	}
	if b, err = encode("orders with a key", all); err != nil {
		return err
	}
	c.tx.Put(store.History, givenRangeKey, b)
	return nil
}
