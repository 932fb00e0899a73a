package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func groupCommand() *cobra.Command {
	return family("group", "List, describe and delete consumer groups, and reset their offsets",
		groupListCommand(), groupDescribeCommand(), groupResetCommand(), groupDeleteCommand())
}

// listedGroup is one group of a list.
type listedGroup struct {
	Group        string `json:"group"`
	Type         string `json:"type"`
	ProtocolType string `json:"protocolType"`
	State        string `json:"state"`
	Coordinator  int32  `json:"coordinator"`
}

func groupListCommand() *cobra.Command {
	var flags clientFlags
	var states, types []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List groups with their type and state",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			req := kmsg.NewPtrListGroupsRequest()
			req.StatesFilter, req.TypesFilter = states, types
			groups, err := flags.listGroups(cmd, req)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(groups)
			}
			tw := tabwriter.NewWriter(cmd.OutOrStdout(), 2, 0, 2, ' ', 0)
			fmt.Fprintln(tw, "GROUP\tTYPE\tPROTOCOL TYPE\tSTATE\tCOORDINATOR")
			for _, g := range groups {
				fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%d\n", g.Group, g.Type, g.ProtocolType, g.State, g.Coordinator)
			}
			return tw.Flush()
		},
	}
	flags.add(cmd.Flags())
	cmd.Flags().StringSliceVar(&states, "state", nil, "only groups in these states: Empty, PreparingRebalance, CompletingRebalance, Assigning, Reconciling, Stable, Dead")
	cmd.Flags().StringSliceVar(&types, "type", nil, "only groups of these types: classic, consumer")
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON array")
	return cmd
}

// listGroups asks every broker, and gives the groups sorted by name.
func (f *clientFlags) listGroups(cmd *cobra.Command, req *kmsg.ListGroupsRequest) ([]listedGroup, error) {
	cl, err := f.client()
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	groups := []listedGroup{}
	for _, shard := range cl.RequestSharded(cmd.Context(), req) {
		if shard.Err != nil {
			return nil, shard.Err
		}
		resp := shard.Resp.(*kmsg.ListGroupsResponse)
		if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
			return nil, fmt.Errorf("broker %d: %w", shard.Meta.NodeID, err)
		}
		for _, g := range resp.Groups {
			groups = append(groups, listedGroup{Group: g.Group, Type: g.GroupType, ProtocolType: g.ProtocolType, State: g.GroupState, Coordinator: shard.Meta.NodeID})
		}
	}
	slices.SortFunc(groups, func(a, b listedGroup) int { return strings.Compare(a.Group, b.Group) })
	return groups, nil
}

func groupDescribeCommand() *cobra.Command {
	var flags clientFlags
	var members, asJSON bool
	cmd := &cobra.Command{
		Use:   "describe GROUP...",
		Short: "Show a group's state, its lag by partition, and who owns what",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			adm, closeAdmin, err := flags.admin()
			if err != nil {
				return err
			}
			defer closeAdmin()
			var groups []*groupDescription
			var errs []error
			for _, name := range names {
				g, err := describeGroup(cmd.Context(), adm, name)
				if err != nil {
					errs = append(errs, fmt.Errorf("group %s: %w", name, err))
					continue
				}
				groups = append(groups, g)
			}
			if asJSON {
				errs = append(errs, json.NewEncoder(cmd.OutOrStdout()).Encode(groups))
				return errors.Join(errs...)
			}
			for _, g := range groups {
				errs = append(errs, g.print(cmd.OutOrStdout(), members))
			}
			return errors.Join(errs...)
		},
	}
	flags.add(cmd.Flags())
	cmd.Flags().BoolVar(&members, "members", false, "the members too: who they are, their epochs, what they own and are to own")
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON array")
	return cmd
}

func groupDeleteCommand() *cobra.Command {
	var flags clientFlags
	cmd := &cobra.Command{
		Use:   "delete GROUP...",
		Short: "Delete groups without members, and their committed offsets",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			adm, closeAdmin, err := flags.admin()
			if err != nil {
				return err
			}
			defer closeAdmin()
			resps, err := adm.DeleteGroups(cmd.Context(), names...)
			if err != nil {
				return err
			}
			var errs []error
			for _, r := range resps.Sorted() {
				if r.Err != nil {
					errs = append(errs, fmt.Errorf("group %s: %w", r.Group, r.Err))
					continue
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s deleted\n", r.Group)
			}
			return errors.Join(errs...)
		},
	}
	flags.add(cmd.Flags())
	return cmd
}

// groupTopics are the topics that a group has to do with.
func groupTopics(sets ...kadm.TopicsSet) []string {
	all := kadm.TopicsSet{}
	for _, s := range sets {
		all.Merge(s)
	}
	topics := all.Topics()
	slices.Sort(topics)
	return topics
}
