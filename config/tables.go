package config

import "sync"

// Broker is the catalogue of broker settings.
func Broker() *Table { return brokerTable() }

// Topic is the catalogue of topic settings.
func Topic() *Table { return topicTable() }

// Group is the catalogue of group settings.
func Group() *Table { return groupTable() }

// ClientMetrics is the catalogue of client metrics subscriptions' settings.
func ClientMetrics() *Table { return clientMetricsTable() }

var (
	brokerTable        = sync.OnceValue(func() *Table { return &Table{} })
	topicTable         = sync.OnceValue(func() *Table { return &Table{} })
	groupTable         = sync.OnceValue(func() *Table { return &Table{} })
	clientMetricsTable = sync.OnceValue(func() *Table { return &Table{} })
)
