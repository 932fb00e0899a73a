package bench

// Entry is a workload of the catalogue.
type Entry struct {
	Name  string
	About string
	Shape Shape // what it looks like unless the caller wants it otherwise
	make  func(name string, s Shape) Workload
}

// New makes the workload. change may alter its shape first; it may be nil.
func (e Entry) New(change func(*Shape)) Workload {
	s := e.Shape
	if change != nil {
		change(&s)
	}
	return e.make(e.Name, s)
}

// Catalogue is every workload that there is, in the order of reports.
func Catalogue() []Entry {
	return []Entry{
		{"produce", "1 KB records in batches of 64 KB, one partition, 2 connections × 5 requests",
			Shape{Connections: 2, RecordBytes: 1024, BatchBytes: 64 << 10}, newProduceWork},
		{"consume", "fetches of 1 MiB over what was written before, a partition each",
			Shape{Connections: 4, Partitions: 4, InFlight: 1, RecordBytes: 1024, FetchBytes: 1 << 20}, newConsumeWork},
	}
}
