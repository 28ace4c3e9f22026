//go:build !linux

package main

import "errors"

type floorShard struct{}

func newFloorShard(*floor) (*floorShard, error) {
	return nil, errors.New("needs epoll, and so Linux")
}

func (s *floorShard) enqueue(floorItem) {}

func (fl *floor) listen(string) (string, error) { return "", nil }
