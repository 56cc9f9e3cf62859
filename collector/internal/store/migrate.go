// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"

	bolt "go.etcd.io/bbolt"
)

// migrations bring a file from schema i+1 to i+2, each in one transaction: a crash leaves the one or the other.
var migrations = []func(*bolt.Tx) error{
	func(tx *bolt.Tx) error { // 2: events of installs that ended leave the feed; orders have a history of their own
		_, err := tx.CreateBucketIfNotExists([]byte(Packed))
		_, err2 := tx.CreateBucketIfNotExists([]byte(History))
		return errors.Join(err, err2)
	},
	func(*bolt.Tx) error { return nil }, // 3: checkpoints have two lines, and installs name their steps; both forms are read
	func(tx *bolt.Tx) error { // 4: events may lie in pieces, of which both forms are read; a database has an ID
		if tx.Bucket(metaBucket).Get(idKey) != nil { // from a restore
			return nil
		}
		return newID(tx)
	},
	func(*bolt.Tx) error { return nil }, // 5: plans are kept as what they are made of; both forms are read
}

// migrate brings an older file up to Schema. What is newer, or no file of ours, is left for checkSchema to refuse.
func migrate(db *bolt.DB, path string) error {
	version, err := schemaOf(db)
	if errors.Is(err, ErrDamaged) {
		return putAside(path, err.Error())
	}
	if err != nil || version < 1 || version >= Schema {
		return nil
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, step := range migrations[version-1:] {
			if err := step(tx); err != nil {
				return err
			}
		}
		return tx.Bucket(metaBucket).Put(schemaKey, []byte(strconv.Itoa(Schema)))
	})
	if err != nil {
		return fmt.Errorf("bringing database %s from schema %d to %d: %w", path, version, Schema, err)
	}
	return nil
}

// schemaOf gives the schema; ErrDamaged if the first page of all cannot be read.
func schemaOf(db *bolt.DB) (version int, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	err = db.View(func(tx *bolt.Tx) error {
		meta := tx.Bucket(metaBucket)
		if meta == nil {
			return errors.New("it is no database of provostd")
		}
		version, err = strconv.Atoi(string(meta.Get(schemaKey)))
		return err
	})
	return version, err
}

func idOf(db *bolt.DB) (id string, err error) {
	err = db.View(func(tx *bolt.Tx) error {
		if id = string(tx.Bucket(metaBucket).Get(idKey)); id == "" {
			return errors.New("it has no ID")
		}
		return nil
	})
	return id, err
}
