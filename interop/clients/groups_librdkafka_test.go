//go:build cgo

package clients

import "testing"

func TestGroupsLibrdkafka(t *testing.T) { Groups(t, LibrdkafkaGroups()) }
